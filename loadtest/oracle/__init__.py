"""TODO loadtest/oracle."""
