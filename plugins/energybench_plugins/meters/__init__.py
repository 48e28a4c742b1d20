"""Power backends."""
