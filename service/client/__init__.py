"""Calls the service from Python, blocking or with asyncio.

May import nothing of the service.
Start reading at ``client``: ``Client.score``.
"""

from service.client.client import AsyncClient, Client
from service.client.retry import ClientError, Late, Refused, Unreachable

__all__ = ["AsyncClient", "Client", "ClientError", "Late", "Refused", "Unreachable"]
