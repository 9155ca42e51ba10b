"""The Python client of the service, blocking and asyncio.

May import nothing of the service.
Start reading in ``client``: ``Client.score``.
"""

from service.client.client import AsyncClient, Client
from service.client.retry import ClientError, Late, Refused, Unreachable

__all__ = ["AsyncClient", "Client", "ClientError", "Late", "Refused", "Unreachable"]
