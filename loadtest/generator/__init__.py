"""TODO loadtest/generator."""
