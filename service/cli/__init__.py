"""TODO service/cli."""
