"""Routes HTTP requests of ``/v1`` and the admin port: bytes to queries, results to bytes.

May import every room but processes, cli and client.
Start reading at ``app``, then ``score`` and ``inference``.
"""
