"""TODO service/items."""
