"""One Experiment becomes one Result."""
