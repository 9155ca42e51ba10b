"""HTTP routes of ``/v1`` and of the admin port: bytes to queries, results to bytes.

May import every room but processes, cli and client.
Start reading at ``app``, then ``score``.
"""
