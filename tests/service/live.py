"""A loaded service in this process behind a real socket, with the limits of a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from service.server.http_server import HttpServers
from service.server.listener import Listener, listen
from service.state import ServiceState
from tests.service.engine_gate import FAR


@asynccontextmanager
async def listening(state: ServiceState) -> AsyncIterator[int]:
    """The port it listens on."""
    with closing(listen("127.0.0.1", 0, "port")) as listener:
        ports = HttpServers(state)
        door = Listener(listener, ports.service.enter)
        door.open()
        try:
            yield listener.getsockname()[1]
        finally:
            door.pause()
            ports.close()


async def until(condition: Callable[[], object]) -> None:
    """TimeoutError if it never comes true."""
    async with asyncio.timeout(FAR):
        while not condition():  # noqa: ASYNC110 — of things that tell nobody
            await asyncio.sleep(0.001)
