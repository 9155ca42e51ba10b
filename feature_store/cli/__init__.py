"""TODO feature_store/cli."""
