"""One HTTP/1.1 connection: an asyncio protocol that makes a cycle of each request.

``service.server.framing`` says where requests begin and end, within limits in bytes and number
(431, 413). Bounded here: the time that headers, body and the taking of an answer need
(``service.server.connections`` keeps it), and requests sent ahead of their answers. What cannot be
answered any more is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from service.access.hosts import TARGET_HOST
from service.api.problems import REFUSAL, problem_of
from service.context import PROBES, UNMATCHED, fresh_id
from service.errors import OverCapacity, RequestTimeout, ServiceError, TooLarge
from service.observability.background import begin_request
from service.observability.metrics import Metrics
from service.server.connections import Crowd
from service.server.cycle import Cycle, Way, is_failure
from service.server.framing import Framing, RequestHead

if TYPE_CHECKING:
    from service.server.http_server import HttpServer

MOST_AHEAD = 16  # requests sent before the answer to the first
LOGGER = logging.getLogger("uvicorn.error")  # of what an application raises
LOGGER.addFilter(is_failure)


class Receiving(asyncio.Protocol):
    """From ``HttpServer``; lives as long as its connection."""

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(self, port: HttpServer) -> None:
        self.book, self.crowd = port.connections, cast(Crowd | None, None)
        self._port, self._limits = port, port.connections.limits
        self._framing = Framing(self._limits)
        self._cycle: Cycle | None = None  # the last one begun
        self._active: Cycle | None = None  # the one being answered
        self._pipeline = deque[tuple[Cycle, ASGI3Application]]()  # begun and not yet started
        self._closing = False
        self.deaf = False  # what still comes is thrown away
        self._more = False  # and there was some
        self._final: ServiceError | None = None  # what is said when all else is answered

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        self._server, self._client = get_local_addr(self.transport), get_remote_addr(self.transport)
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._way = Way(self.transport, self._close)
        self.book.move(self, self.book.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self.deaf = True
        self._way.end = _nothing  # or the two hold each other
        if self._way.half_closed:
            self._port.resets.forget(self._descriptor, self.abort)
        self._port.discarding.remove(self.flow)
        self.book.leave(self)
        self._pipeline.clear()
        self.flow.resume_writing()
        if self._active is not None and not self._active.response_complete:
            self._active.leave()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            self._more = True
            if self.crowd is self.book.lingering:
                self._port.discarding.read(self.flow, len(data))
            else:
                self.flow.pause_reading()  # until all is answered
            return
        try:
            self._more = self._framing.feed(data, self)
        except ServiceError as error:
            self._refuse(error)
            return
        self._settle()

    def eof_received(self) -> bool:
        """The client has shut down its side, or closed the connection, which looks alike until it
        is written to. Requests that are whole are answered, at batch priority, and the last answer
        closes; one that broke off is not."""
        broken_off = self._framing.in_body and not self.deaf
        self._way.half_closed = self.deaf = True
        if self._closing:  # everything is said; what lingers waits for this
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
        self._port.resets.watch(self._descriptor, self.abort)
        active.half_close()
        self._settle()
        return True

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self.book.awaits_reader(self)

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    # What the framing says

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
            refusal, self.deaf = TooLarge.beyond(limits.body_bytes), True
            self.flow.pause_reading()  # until it is answered
        elif len(self.book.in_flight.members) >= limits.in_flight and scope["path"] not in PROBES:
            refusal = OverCapacity("too many requests at a time", headers={"Retry-After": "1"})
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
        self.deaf = not cycle.keep_alive  # what comes after the last request is thrown away
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # What becomes of it

    def _begin_cycle(
        self, scope: HTTPScope, head: RequestHead, refusal: ServiceError | None
    ) -> None:
        last, app = self._cycle, self._port.app
        if refusal is not None:
            app = self._port.refusing
            scope[REFUSAL] = refusal  # type: ignore[literal-required]
        self._cycle = Cycle(
            scope=scope,
            transport=cast(asyncio.Transport, self._way),
            flow=self.flow,
            logger=LOGGER,
            access_logger=LOGGER,
            access_log=False,
            default_headers=self._port.state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=(
                head.keep_alive
                and refusal is None
                and not self.book.draining
                and len(self._pipeline) < MOST_AHEAD
            ),
            on_response=self.on_response_complete,
        )
        if last is None or last.response_complete:
            self._start(self._cycle, app)
        else:
            self.flow.pause_reading()
            self._pipeline.appendleft((self._cycle, app))

    def _start(self, cycle: Cycle, app: ASGI3Application) -> None:
        self._active = cycle
        port = self._port
        begin_request(port.loop, cycle.run_asgi(app), port.state.tasks)

    def on_response_complete(self) -> None:
        """An answer is handed to the transport."""
        if self._closing:
            return
        self.flow.resume_reading()
        if self._pipeline:
            self._start(*self._pipeline.pop())
        elif self._final is not None:
            self._refuse(self._final)
            return
        if self.holds_answer():
            self.book.awaits_reader(self)
        self._settle()

    def _settle(self) -> None:
        """Move to the state this connection is in."""
        if self._closing:
            return
        book, active, framing = self.book, self._active, self._framing
        if not self.deaf and framing.in_body:
            crowd = book.body
        elif not self.deaf and (framing.begun or active is None):
            crowd = book.headers
        elif active is not None and not active.response_complete:
            crowd = book.in_flight
        else:
            crowd = book.idle
        if crowd is not self.crowd:
            book.move(self, crowd)
        if crowd is book.body or self._pipeline or self in book.held:
            book.hold(self, self._held())

    def _held(self) -> int:
        """Bytes in memory of bodies that are not whole, or whose turn has not come."""
        size = sum(len(cycle.body) for cycle, _ in self._pipeline)
        if self.crowd is self.book.body and self._cycle is not None:
            if not self._cycle.response_complete:
                size += self._framing.body_bytes
            if self._pipeline:
                size -= len(self._cycle.body)  # counted twice
        return size

    def _refuse(self, error: ServiceError) -> None:
        """Send a final error, after the answers under way or as the answer whose body fails. Then
        close."""
        body_fails = self._framing.in_body
        self.deaf = self._more = True
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete:
            if body_fails:
                cycle.keep_alive = False
                cycle.end_body(error)
            else:
                self._final = error
            self.book.move(self, self.book.in_flight)
            return
        if not body_fails:  # of a request that was answered without it, nothing is left to say
            self.transport.write(document(error, self.book.metrics))
        self._close()

    def _close(self) -> None:
        """Close when the last answer has been taken. While the client sends, closing at once would
        reset the connection, and the answer might never be read."""
        if self._closing:
            return
        self._closing = True
        framing = self._framing
        if self._way.half_closed or not (self._more or framing.in_body or framing.begun):
            self.book.move(self, self.book.closing)
            self.transport.close()
            return
        self.deaf = True
        self.book.move(self, self.book.lingering)
        self._port.discarding.add(self.flow)
        self.transport.write_eof()

    # What the crowd of connections asks for

    def cut(self) -> bool:
        book, crowd = self.book, self.crowd
        if crowd is book.idle or (crowd is book.headers and not self._framing.begun):
            self._close()
        elif crowd is book.headers or crowd is book.body:
            if self.flow.read_paused:
                book.move(self, crowd)
                return False
            self._refuse(RequestTimeout("the request did not arrive in time"))
        else:
            self.abort()
        return True

    def give_way(self) -> None:
        if not self._framing.in_body:  # what is held are requests sent ahead
            self.abort()
            return
        busy = "too much of other requests is being received"
        self._refuse(OverCapacity(busy, headers={"Retry-After": "1", "Connection": "close"}))

    def abort(self) -> None:
        self._closing = True
        self.book.leave(self)
        self.transport.abort()

    def holds_answer(self) -> bool:
        return self.transport.get_write_buffer_size() > 0

    def say_last(self) -> None:
        """Close after what is under way."""
        if self._cycle is not None and not self._cycle.response_complete:
            self._cycle.keep_alive = False


def _nothing() -> None: ...


def document(error: ServiceError, metrics: Metrics) -> bytes:
    """A whole answer to what never became a request."""
    response = problem_of(error).response(fresh_id())
    metrics.requests.labels(UNMATCHED, response.status_code).inc()
    metrics.problems.labels(error.slug).inc()
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [b"%s: %s\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])
