"""One connection: uvicorn's HTTP/1.1 protocol with the limits it lacks.

Bounded here: bytes and number of headers (431), the body (413, before it is read), the time that
headers, body and the taking of an answer need (``service.connections`` keeps it), and requests
sent ahead of their answers. What cannot be answered any more is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.connections import Crowd
from service.cycle import Cycle, Way
from service.errors import (
    HeadersTooLarge,
    NotHttp,
    OverCapacity,
    RequestTimeout,
    ServiceError,
    TooLarge,
)
from service.exchange import PROBES, TARGET_HOST, UNMATCHED, fresh_id
from service.metrics import Metrics
from service.problems import REFUSAL, problem_of

if TYPE_CHECKING:
    from service.port import Port

MOST_AHEAD = 16  # requests sent before the answer to the first
# Each piece costs a microsecond, so a body in chunks of a byte would hold everybody up. A larger
# number than this takes an average size.
FREE_PIECES, SMALL_PIECE = 512, 64  # bytes
HEADER_OVERHEAD = 4  # ": " and the end of the line


class Stop(Exception):
    """Raised in a callback of the parser: nothing more is parsed."""


class Refused(Stop):
    """And that is why."""

    def __init__(self, error: ServiceError) -> None:
        self.error = error


class Receiving(HttpToolsProtocol):
    """From ``Port``; lives as long as its connection."""

    cycle: Cycle  # the last one begun

    def __init__(self, port: Port) -> None:
        super().__init__(port.config, port.state, {}, port.loop)
        self.book, self.crowd = port.connections, cast(Crowd | None, None)
        self._limits, self._refusing = port.connections.limits, port.refusing
        self._active: Cycle | None = None  # the one being answered
        self._begun = False  # a byte of the next request is here
        self._in_headers = True
        self._whole = False  # the last request is here to its end
        self._closing = False
        self._deaf = False  # what still comes is thrown away
        self._more = False  # and there was some
        self._body_size, self._pieces, self._announced = 0, 0, b"0"
        # Bytes since the parser last told of something whole: headers, part of a body. All of a
        # message's headers are among them, and whatever it keeps to itself.
        self._unparsed = 0
        self._chunk = 0  # bytes of this chunk; 0 when a message has ended in it

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._way = Way(self.transport, self._close)
        self.book.move(self, self.book.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closing = True
        self._way.end = _nothing  # or the two hold each other
        self.book.leave(self)
        self.pipeline.clear()
        if self._active is not None and not self._active.response_complete:
            self._active.leave()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._more = True
            return
        self._begun = True
        self._chunk = len(data)
        self._unparsed += self._chunk
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to nothing: it goes on as HTTP/1.1
        except httptools.HttpParserError as error:
            if type(error.__context__) is Stop:
                self._more = True
            else:
                self._refuse(_reason(error))
                return
        if self._unparsed > self._limits.header_bytes:
            self._refuse(self._headers_too_large())
            return
        self._settle()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.book.awaits_reader(self)

    # What the parser says

    def on_message_begin(self) -> None:
        if self._deaf:
            raise Stop
        super().on_message_begin()
        self._in_headers, self._whole = True, False
        self._body_size, self._pieces, self._announced = 0, 0, b"0"
        self._unparsed = self._chunk

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if len(self.headers) >= self._limits.headers:
            raise Refused(self._headers_too_large())
        if name == b"content-length":
            self._announced = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        limits, scope, url = self._limits, self.scope, httptools.parse_url(self.url)
        if self._unparsed > limits.header_bytes or not self._chunk:
            sizes = sum(len(name) + len(value) + HEADER_OVERHEAD for name, value in self.headers)
            if len(self.url) + sizes > limits.header_bytes:
                raise Refused(self._headers_too_large())
        self._in_headers, self._unparsed = False, 0
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = self.parser.get_http_version()
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = url.path, url.query or b""
        if url.host is not None:  # absolute-form: the target names a host too
            scope[TARGET_HOST] = url.host  # type: ignore[literal-required]
        refusal: ServiceError | None = None
        if int(self._announced) > limits.body_bytes:
            refusal, self._deaf = TooLarge.beyond(limits.body_bytes), True
        elif len(self.book.in_flight.members) >= limits.in_flight and scope["path"] not in PROBES:
            refusal = OverCapacity("too many requests at a time", headers={"Retry-After": "1"})
        self._begin_cycle(refusal)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if self._deaf:
            return
        self._pieces += 1
        self._body_size += len(body)
        if self._body_size > self._limits.body_bytes:
            raise Refused(TooLarge.beyond(self._limits.body_bytes))
        if self._pieces > FREE_PIECES + self._body_size // SMALL_PIECE:
            raise Refused(TooLarge("the body comes in too many small chunks"))
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._unparsed = self._chunk = 0
        if self._deaf:
            return
        cycle, self._whole, self._begun = self.cycle, True, False
        self._deaf = not cycle.keep_alive  # what comes after the last request is nobody's
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # What becomes of it

    def _begin_cycle(self, refusal: ServiceError | None) -> None:
        keep_alive = (
            refusal is None
            and not self.book.draining
            and len(self.pipeline) < MOST_AHEAD
            and self.scope["http_version"] != "1.0"
            and self.parser.should_keep_alive()
        )
        last = self.cycle
        self.cycle = Cycle(
            scope=self.scope,
            transport=cast(asyncio.Transport, self._way),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        app = self.app
        if refusal is not None:
            app, self.scope[REFUSAL] = self._refusing, refusal  # type: ignore[literal-required]
        if last is None or last.response_complete:
            self._start(self.cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))

    def _start(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cast(Cycle, cycle)
        self._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is handed to the transport."""
        if self._closing:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(*self.pipeline.pop())
        if self.holds_answer():
            self.book.awaits_reader(self)
        self._settle()

    def _settle(self) -> None:
        """Into the state it is in."""
        if self._closing:
            return
        book, active = self.book, self._active
        if not self._whole and not self._deaf:
            crowd = book.headers if self._in_headers else book.body
        elif active is not None and not active.response_complete:
            crowd = book.in_flight
        else:
            crowd = book.idle
        if crowd is not self.crowd:
            book.move(self, crowd)

    def _refuse(self, error: ServiceError) -> None:
        """The last thing said here, by whoever is in a position to say it."""
        body_fails = not self._in_headers and not self._whole
        self._deaf = True
        if self._active is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if body_fails:
                self.cycle.end_body(error)
            self.book.move(self, self.book.in_flight)
            return
        if not body_fails:  # of a request that was answered without it, nothing is left to say
            self.transport.write(document(error, self.book.metrics))
        self._close()

    def _close(self) -> None:
        """When the last answer has been taken. While the client sends, closing at once would
        reset the connection, and the answer might never be read."""
        if self._closing:
            return
        self._closing = True
        if self._whole and not self._more:
            self.book.move(self, self.book.closing)
            self.transport.close()
            return
        self._deaf = True
        self.book.move(self, self.book.lingering)
        self.flow.resume_reading()
        self.transport.write_eof()

    # What the crowd of connections asks for

    def cut(self) -> bool:
        book, crowd = self.book, self.crowd
        if crowd is book.idle or (crowd is book.headers and not self._begun):
            self._whole = True
            self._close()
        elif crowd is book.headers or crowd is book.body:
            if self.flow.read_paused:
                book.move(self, crowd)
                return False
            self._refuse(RequestTimeout("the request did not arrive in time"))
        else:
            self.abort()
        return True

    def abort(self) -> None:
        self._closing = True
        self.book.leave(self)
        self.transport.abort()

    def holds_answer(self) -> bool:
        return self.transport.get_write_buffer_size() > 0

    def say_last(self) -> None:
        """After what is under way the connection is closed."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _headers_too_large(self) -> HeadersTooLarge:
        limits = self._limits
        return HeadersTooLarge(
            f"request line and headers take more than {limits.header_bytes} bytes, or there are "
            f"more than {limits.headers} headers",
            members={"limit_bytes": limits.header_bytes, "limit_headers": limits.headers},
        )


def _nothing() -> None: ...


def document(error: ServiceError, metrics: Metrics) -> bytes:
    """A whole answer to what never became a request."""
    response = problem_of(error).response(fresh_id())
    metrics.requests.labels(UNMATCHED, response.status_code).inc()
    metrics.problems.labels(error.slug).inc()
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [b"%s: %s\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])


def _reason(error: Exception) -> ServiceError:
    if isinstance(error.__context__, Refused):
        return error.__context__.error
    return NotHttp("what was sent is not HTTP/1.1")
