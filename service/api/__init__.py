"""TODO service/api."""
