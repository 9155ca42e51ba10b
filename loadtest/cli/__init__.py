"""TODO loadtest/cli."""
