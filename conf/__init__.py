"""Configuration files, found by Hydra as `pkg://energybench.conf`."""
