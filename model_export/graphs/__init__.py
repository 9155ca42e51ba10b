"""TODO model_export/graphs."""
