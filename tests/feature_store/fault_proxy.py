"""A TCP proxy of our own that breaks connections the way networks do, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from enum import Enum

CHUNK = 65_536


class Fault(Enum):
    NONE = "none"
    REFUSED = "refused"  # nobody listens, and what was connected is reset
    BLACK_HOLE = "black hole"  # connections open, nothing ever comes back
    SLOW = "+200 ms"  # on every answer
    RESET = "reset mid-reply"  # three bytes of an answer, then a reset
    DRIP = "one byte per second"


class FaultProxy:
    """Forwards to a local port. Set ``fault`` with ``become``."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.fault = Fault.NONE
        self.connections = 0  # ever accepted
        self.requests = 0  # chunks that clients sent
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def become(self, fault: Fault) -> None:
        self.fault = fault
        if fault is Fault.REFUSED:
            await self._stop_listening()
            for writer in list(self._open):
                _reset(writer)
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            answers, there = await asyncio.open_connection("127.0.0.1", self.target_port)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._questions(reader, there))
                both.create_task(self._answers(answers, writer))
        except* OSError:
            pass
        finally:
            self._open.discard(writer)
            for one in (writer, there):
                if one is not None:
                    one.transport.abort()

    async def _questions(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            self.requests += 1
            if self.fault is not Fault.BLACK_HOLE:
                there.write(data)
                await there.drain()
        raise ConnectionResetError("the client went")

    async def _answers(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await answers.read(CHUNK):
            match self.fault:
                case Fault.BLACK_HOLE:
                    continue
                case Fault.SLOW:
                    await asyncio.sleep(0.2)
                case Fault.RESET:
                    writer.write(data[:3])
                    await asyncio.sleep(0.001)
                    _reset(writer)
                    raise ConnectionResetError("as told")
                case Fault.DRIP:
                    while data and self.fault is Fault.DRIP:
                        writer.write(data[:1])
                        data = data[1:]
                        await asyncio.sleep(1)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the server went")

    async def close(self) -> None:
        await self._stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """An RST instead of a polite end."""
    link = writer.get_extra_info("socket")
    if link is not None:
        with contextlib.suppress(OSError):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def proxied(port: int) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(port)
    await proxy.become(Fault.NONE)
    try:
        yield proxy
    finally:
        await proxy.close()
