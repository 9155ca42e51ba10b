"""TODO feature_store/lmdb."""
