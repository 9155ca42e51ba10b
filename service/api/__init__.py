"""Routes HTTP requests of ``/v1`` and the admin port: bytes to queries, results to bytes.

May import every room but processes, cli, client and console.
Start reading at ``app``, then ``score`` and ``inference``.
"""
