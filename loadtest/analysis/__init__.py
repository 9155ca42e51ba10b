"""TODO loadtest/analysis."""
