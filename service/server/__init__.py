"""HTTP/1.1 on a connection: how its bytes become requests. Knows no application."""
