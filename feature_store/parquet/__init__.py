"""TODO feature_store/parquet."""
