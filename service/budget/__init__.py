"""Admission of what is no scoring: requests that cost the event loop more than they bring."""
