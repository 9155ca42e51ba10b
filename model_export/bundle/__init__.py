"""TODO model_export/bundle."""
