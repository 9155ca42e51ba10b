"""The processes of a service: how they begin, what they share, how they end."""
