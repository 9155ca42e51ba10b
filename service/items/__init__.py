"""Item vectors: the table they are kept in, its index, and how missing ones are fetched.

May import admission, engine, observability, context, errors, settings.
Start reading at ``lookup``, then ``table``.
"""
