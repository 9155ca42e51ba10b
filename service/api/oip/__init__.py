"""TODO service/api/oip."""
