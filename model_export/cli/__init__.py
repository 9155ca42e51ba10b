"""TODO model_export/cli."""
