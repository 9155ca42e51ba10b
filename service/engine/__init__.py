"""TODO service/engine."""
