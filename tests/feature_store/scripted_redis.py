"""A server that speaks RESP and answers what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[list[bytes]], Any]
GREETINGS = {b"CLIENT": b"+OK\r\n", b"SELECT": b"+OK\r\n", b"PING": b"+PONG\r\n"}


class Raw(bytes):
    """Bytes that are sent as they are."""


def encoded(value: Any) -> bytes:
    match value:
        case Raw():
            return bytes(value)
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))
    raise TypeError(type(value).__name__)


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[int]:
    """The port of a server that greets as Redis does and answers the rest by ``answer``."""

    serving: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving[asyncio.current_task()] = writer
        try:
            while line := await reader.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(size + 2))[:-2])
                greeting = GREETINGS.get(parts[0].upper())
                writer.write(greeting or encoded(answer(parts)))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*(task for task in serving if task), return_exceptions=True)
