"""What the connections of one port share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import ASGIApp

from service.errors import ServiceError
from service.server.connections import ConnectionTracker
from service.server.lingering import Discarding
from service.server.resets import Resets


@dataclass(frozen=True, slots=True)
class Application:
    """What a port serves. The server knows no more of it."""

    name: str  # of the port, in metrics
    app: ASGIApp
    refuse: Callable[[ServiceError], ASGIApp]  # answers a request that is refused by its headers
    error_response: Callable[[ServiceError], Response]  # to what is not a request
    exempt: frozenset[str] = frozenset()  # paths that are answered at any load


@dataclass(slots=True, eq=False)
class ServerContext:
    application: Application
    tracker: ConnectionTracker
    loop: asyncio.AbstractEventLoop
    resets: Resets
    discarding: Discarding
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # requests
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
