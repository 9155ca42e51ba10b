"""TODO model_export/quality."""
