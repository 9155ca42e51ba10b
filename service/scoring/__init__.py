"""TODO service/scoring."""
