"""One HTTP/1.1 connection: an asyncio protocol that runs each request as an ASGI cycle.

``service.server.framing`` finds where requests begin and end, within limits on bytes and number
(431, 413). This module bounds the requests sent ahead of their answers (pipelining), and reports
its state to ``service.server.connections``, which bounds the time for headers, body and answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import cast
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from service.context import TARGET_HOST
from service.errors import OverCapacity, RequestTimeout, ServiceError, TooLarge
from service.observability.background import begin_request
from service.server.connections import ConnectionState
from service.server.context import ServerContext
from service.server.cycle import Cycle, ResponseWriter, is_failure
from service.server.framing import Framing, RequestHead

MOST_AHEAD = 16  # requests sent before the answer to the first
LOGGER = logging.getLogger("uvicorn.error")  # for errors that an application raises
LOGGER.addFilter(is_failure)


class HttpProtocol(asyncio.Protocol):
    """Serves one connection, for as long as it lives. Made by ``HttpServer``."""

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(self, context: ServerContext) -> None:
        self.tracker, self.state = context.tracker, cast(ConnectionState | None, None)
        self._context, self._limits = context, context.tracker.limits
        self._framing = Framing(self._limits)
        self._cycle: Cycle | None = None  # the last one begun
        self._active: Cycle | None = None  # the one being answered
        self._pipeline = deque[tuple[Cycle, ASGIApp]]()  # not started yet
        self._closing = False
        self.discards = False  # further input
        self._more = False  # there was some
        self._final: ServiceError | None = None  # sent when all else is answered

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        self._server, self._client = get_local_addr(self.transport), get_remote_addr(self.transport)
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._writer = ResponseWriter(self.transport, self._close, self._begin_stream)
        self.tracker.move(self, self.tracker.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self.discards = True
        self._writer.end, self._writer.begin_stream = _nothing, _no_stream  # no reference cycle
        if self._writer.half_closed:
            self._context.resets.forget(self._descriptor, self.abort)
        self._context.discarding.remove(self.flow)
        self.tracker.leave(self)
        self._pipeline.clear()
        self.flow.resume_writing()
        if self._active is not None and not self._active.response_complete:
            self._active.leave()

    def data_received(self, data: bytes) -> None:
        if self.discards:
            self._more = True
            if self.state is self.tracker.lingering:
                self._context.discarding.read(self.flow, len(data))
            else:
                self.flow.pause_reading()  # until the answers are sent
            return
        try:
            self._more = self._framing.feed(data, self)
        except ServiceError as error:
            self._refuse(error)
            return
        self._settle()

    def eof_received(self) -> bool:
        """The client has shut down its side or closed the connection, which differ only when it is
        written to. Answer complete requests at batch priority, then close; drop a partial one."""
        broken_off = self._framing.in_body and not self.discards
        self._writer.half_closed = self.discards = True
        if self._closing:  # the end of lingering
            return False
        last, active = self._cycle, self._active
        if broken_off and self._pipeline:
            self._pipeline.popleft()
            last = self._pipeline[0][0] if self._pipeline else active
        elif broken_off:
            last = None
        if last is None or active is None or last.response_complete:
            self._close()
            return False
        last.keep_alive = last.keep_alive and self._final is not None
        self._context.resets.watch(self._descriptor, self.abort)
        active.half_close()
        self._settle()
        return True

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self.tracker.track_unsent(self)

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    # Called by the framing

    def on_request(self, head: RequestHead) -> None:
        path = head.path.decode("ascii")
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": "",
            "headers": head.headers,
            "state": {},
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
        }
        if head.authority is not None:
            scope[TARGET_HOST] = head.authority  # type: ignore[literal-required]
        limits = self._limits
        refusal: ServiceError | None = None
        if head.length is not None and head.length > limits.body_bytes:
            refusal, self.discards = TooLarge.beyond(limits.body_bytes), True
            self.flow.pause_reading()  # until the refusal is sent
        elif (
            len(self.tracker.in_flight.members) >= limits.in_flight
            and scope["path"] not in self._context.application.exempt
        ):
            refusal = OverCapacity("too many concurrent requests", headers={"Retry-After": "1"})
        self._begin_cycle(scope, head, refusal)

    def on_body(self, piece: bytes) -> None:
        cycle = self._cycle
        assert cycle is not None, "a head comes before its body"
        if not cycle.response_complete:
            cycle.add(piece)
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()

    def on_complete(self) -> None:
        cycle = self._cycle
        assert cycle is not None, "a message has a head"
        self.discards = not cycle.keep_alive  # after the last request
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # Requests and states

    def _begin_cycle(
        self, scope: HTTPScope, head: RequestHead, refusal: ServiceError | None
    ) -> None:
        last, application = self._cycle, self._context.application
        app = application.app if refusal is None else application.refuse(refusal)
        self._cycle = Cycle(
            scope=scope,
            transport=cast(asyncio.Transport, self._writer),
            flow=self.flow,
            logger=LOGGER,
            access_logger=LOGGER,
            access_log=False,
            default_headers=self._context.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=(
                head.keep_alive
                and refusal is None
                and not self.tracker.draining
                and len(self._pipeline) < MOST_AHEAD
            ),
            on_response=self.on_response_complete,
        )
        if last is None or last.response_complete:
            self._start(self._cycle, app)
        else:
            self.flow.pause_reading()
            self._pipeline.appendleft((self._cycle, app))

    def _start(self, cycle: Cycle, app: ASGIApp) -> None:
        self._active, context = cycle, self._context
        running = cycle.run_asgi(cast(ASGI3Application, app))
        begin_request(context.loop, running, context.tasks)

    def on_response_complete(self) -> None:
        """An answer has been written to the transport."""
        if self._closing:
            return
        self.flow.resume_reading()
        if self._pipeline:
            self._start(*self._pipeline.pop())
        elif self._final is not None:
            self._refuse(self._final)
            return
        if self.has_unsent():
            self.tracker.track_unsent(self)
        self._settle()

    def _settle(self) -> None:
        """Move to the state that this connection is in now."""
        if self._closing:
            return
        tracker, active, framing = self.tracker, self._active, self._framing
        if not self.discards and framing.in_body:
            state = tracker.body
        elif not self.discards and (framing.begun or active is None):
            state = tracker.headers
        elif active is not None and not active.response_complete:
            state = tracker.in_flight if active.end_stream is None else tracker.streaming
        else:
            state = tracker.idle
        if state is not self.state:
            tracker.move(self, state)
        if state is tracker.body or self._pipeline or self in tracker.held:
            tracker.hold(self, self._held())

    def _begin_stream(self) -> bool:
        """Move to the streams, if there is room and no drain."""
        tracker = self.tracker
        full = len(tracker.streaming.members) >= self._limits.streaming
        if full or tracker.draining or self._closing:
            return False
        self._settle()
        return self.state is tracker.streaming

    def _held(self) -> int:
        """Bytes in memory of bodies that are incomplete or wait for their turn."""
        size = sum(len(cycle.body) for cycle, _ in self._pipeline)
        if self.state is self.tracker.body and self._cycle is not None:
            if not self._cycle.response_complete:
                size += self._framing.body_bytes
            if self._pipeline:
                size -= len(self._cycle.body)  # counted twice
        return size

    def _refuse(self, error: ServiceError) -> None:
        """Send a final error: as the answer of the request whose body fails, or after the answers
        under way. Then close."""
        body_fails = self._framing.in_body
        self.discards = self._more = True
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete:
            if body_fails:
                cycle.keep_alive = False
                cycle.end_body(error)
            else:
                self._final = error
            self.tracker.move(self, self.tracker.in_flight)
            return
        if not body_fails:  # its request has been answered already
            self.transport.write(_encoded(self._context.application.error_response(error)))
        self._close()

    def _close(self) -> None:
        """Close when the last answer has been sent. While the client sends, closing at once would
        reset the connection and could lose the answer: linger instead."""
        if self._closing:
            return
        self._closing = True
        framing = self._framing
        if self._writer.half_closed or not (self._more or framing.in_body or framing.begun):
            self.tracker.move(self, self.tracker.closing)
            self.transport.close()
            return
        self.discards = True
        self.tracker.move(self, self.tracker.lingering)
        self._context.discarding.add(self.flow)
        self.transport.write_eof()

    # Called by the tracker

    def expire(self) -> bool:
        tracker, state = self.tracker, self.state
        if state is tracker.idle or (state is tracker.headers and not self._framing.begun):
            self._close()
        elif state is tracker.headers or state is tracker.body:
            if self.flow.read_paused:
                tracker.move(self, state)
                return False
            self._refuse(RequestTimeout("the request was not received in time"))
        else:
            self.abort()
        return True

    def release_body(self) -> None:
        if not self._framing.in_body:  # it holds requests sent ahead
            self.abort()
            return
        detail = "too many request bodies are being received"
        self._refuse(OverCapacity(detail, headers={"Retry-After": "1", "Connection": "close"}))

    def abort(self) -> None:
        self._closing = True
        self.tracker.leave(self)
        self.transport.abort()

    def has_unsent(self) -> bool:
        return self.transport.get_write_buffer_size() > 0

    def close_after_answer(self) -> None:
        """Close after the answer under way; end it if it is a stream."""
        if self._cycle is not None and not self._cycle.response_complete:
            self._cycle.keep_alive = False
        if self._active is not None and self._active.end_stream is not None:
            self._active.end_stream()


def _nothing() -> None: ...


def _no_stream() -> bool:
    return False


def _encoded(response: Response) -> bytes:
    """A whole response, the last of its connection."""
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [b"%s: %s\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])
