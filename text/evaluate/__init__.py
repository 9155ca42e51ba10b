"""Evaluates encoders on the tasks of a corpus, beside peers on the same items (numpy)."""
