"""One request of a connection and its answer: uvicorn's cycle, and a ``Connection``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.context import CONNECTION
from service.errors import ServiceError


def is_failure(record: logging.LogRecord) -> bool:
    """Log filter: drop errors of uvicorn's cycle about requests whose task is being cancelled.
    ``HttpServers.close`` counts those."""
    if not record.exc_info or not isinstance(record.exc_info[1], asyncio.CancelledError):
        return True
    task = asyncio.current_task()
    return task is None or not task.cancelling()


class ResponseWriter:
    """A cycle's transport: coalesces the head and the body of an answer into one write, because a
    system call costs more than most of an answer's Python; ``close`` asks the connection."""

    __slots__ = ("_head", "_write", "begin_stream", "end", "half_closed", "holding", "is_closing")

    def __init__(
        self,
        transport: asyncio.Transport,
        end: Callable[[], None],
        begin_stream: Callable[[], bool],
    ) -> None:
        self._write, self.is_closing = transport.write, transport.is_closing
        self.end = end  # closes the connection
        self.begin_stream = begin_stream  # counts it among the streams; False: there are too many
        self.half_closed = False  # by the client
        self.holding = False  # the next write is a head
        self._head = b""

    def write(self, data: bytes) -> None:
        if self.holding:
            self._head = data
            return
        head, self._head = self._head, b""
        self._write(head + data)

    def close(self) -> None:
        if self._head:  # no body follows: show the client that the answer is incomplete
            self.write(b"")
        self.end()


class Cycle(RequestResponseCycle):
    """One request and its answer, and its ``service.context.Connection``."""

    body: bytes | bytearray  # type: ignore[assignment]
    fault: ServiceError | None = None  # why the body stays incomplete
    end_stream: Callable[[], None] | None = None  # the application's, of a stream
    _left: Callable[[], None] | None = None
    _half_closed: Callable[[], None] | None = None

    async def run_asgi(self, app: ASGI3Application) -> None:
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
        try:
            await super().run_asgi(app)
        finally:
            # Reference cycles (a fault's traceback holds frames): without this every request would
            # be left to the garbage collector.
            del self.scope[CONNECTION]  # type: ignore[misc]
            self.fault = self.end_stream = None

    async def send(self, message: ASGISendEvent) -> None:
        writer = cast(ResponseWriter, self.transport)
        begins = message["type"] == "http.response.start"
        if self.waiting_for_100_continue and begins and self.more_body:
            self.keep_alive = False  # the client may omit the body, or send it anyway
        # An answer to HEAD has no body.
        writer.holding = begins and self.scope["method"] != "HEAD"
        try:
            await super().send(message)
        finally:
            writer.holding = False

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if self.fault is not None:
            raise self.fault
        return message

    def add(self, piece: bytes) -> None:
        """Add a piece of the body. A single piece is not copied."""
        if not self.body:
            self.body = piece
        elif isinstance(self.body, bytes):
            self.body = bytearray().join((self.body, piece))
        else:
            self.body += piece
        self.message_event.set()

    def end_body(self, fault: ServiceError) -> None:
        """Raise ``fault`` where the body is awaited."""
        self.fault, self.body = fault, b""
        self.message_event.set()

    def whole_body(self) -> bytes | None:
        if self.more_body or self.fault is not None or not self.message_event.is_set():
            return None
        body = bytes(self.body)
        self.body = bytearray()
        self.message_event.clear()
        self.flow.resume_reading()
        return body

    @property
    def has_left(self) -> bool:
        return self.disconnected

    @property
    def has_half_closed(self) -> bool:
        return cast(ResponseWriter, self.transport).half_closed

    def watch(self, left: Callable[[], None] | None) -> None:
        self._left = left

    def watch_half_close(self, half_closed: Callable[[], None] | None) -> None:
        self._half_closed = half_closed

    def stream(self, end: Callable[[], None]) -> bool:
        self.end_stream = end
        begun = cast(ResponseWriter, self.transport).begin_stream()
        if not begun:
            self.end_stream = None
        return begun

    def half_close(self) -> None:
        """The client has shut down its side."""
        if self._half_closed is not None:
            self._half_closed()

    def leave(self) -> None:
        """The client has disconnected."""
        self.disconnected = True
        self.message_event.set()
        if self._left is not None:
            self._left()
