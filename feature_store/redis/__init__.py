"""TODO feature_store/redis."""
