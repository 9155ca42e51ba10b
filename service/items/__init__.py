"""Holds item vectors: the table, its index, and the fetching of what is missing.

May import admission, engine, observability, private_directory, context, settings,
errors.
Start reading at ``lookup``, then ``table``.
"""
