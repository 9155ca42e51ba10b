"""TODO model_export/fuxictr."""
