"""Asks: an open-loop schedule of requests, and a verdict. Knows the service by HTTP alone."""
