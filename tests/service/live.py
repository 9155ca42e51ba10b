"""An application in this process behind a real server and a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from service.serving import Server
from tests.service.engine_gate import FAR


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[int]:
    """The port it listens on."""
    config = uvicorn.Config(
        app, port=0, http="httptools", ws="none", lifespan="off", log_config=None
    )
    server = Server(config)
    task = asyncio.create_task(server.serve())
    await server.listening.wait()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def until(condition: Callable[[], object]) -> None:
    """TimeoutError if it never comes true."""
    async with asyncio.timeout(FAR):
        while not condition():  # noqa: ASYNC110 — of things that tell nobody
            await asyncio.sleep(0.001)
