"""TODO loadtest/experiments."""
