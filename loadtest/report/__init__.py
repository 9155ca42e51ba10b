"""TODO loadtest/report."""
