"""A loaded service in this process behind a real socket, with the limits of a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from service.processes.run import http_servers
from service.server.listener import Listener, listen
from service.state import ServiceState
from tests.service.engine_gate import FAR


@asynccontextmanager
async def listening(state: ServiceState) -> AsyncIterator[int]:
    """The port it listens on."""
    with closing(listen("127.0.0.1", 0, "port")) as listener:
        servers = http_servers(state)
        ours = Listener(listener, servers.service.enter)
        ours.open()
        try:
            yield listener.getsockname()[1]
        finally:
            ours.pause()
            servers.close()


async def until(condition: Callable[[], object]) -> None:
    """TimeoutError if it never comes true."""
    async with asyncio.timeout(FAR):
        while not condition():  # noqa: ASYNC110 — of things that tell nobody
            await asyncio.sleep(0.001)
