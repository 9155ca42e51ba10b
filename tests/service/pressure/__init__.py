"""How the service holds up when it is asked for more than it has."""
