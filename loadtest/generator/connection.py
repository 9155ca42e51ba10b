"""One HTTP/1.1 connection of the generator: non-blocking, one request at a time.

The parser is httptools (llhttp, the one of Node and uvicorn). Everything here runs on the clock of
a request in flight, so it stays small: no retries, no redirects, no decoding of bodies.
"""

from __future__ import annotations

import errno
import socket
from enum import Enum, auto

import httptools

from loadtest.generator.columns import Reason
from loadtest.generator.poller import READ, WRITE, Poller, clock

RECEIVE = 1 << 18


class State(Enum):
    CONNECTING = auto()
    IDLE = auto()
    BUSY = auto()
    CLOSED = auto()


class Connection:
    """A socket, what is still to be written to it, and the answer being read from it."""

    __slots__ = (
        "_first",
        "_keep_alive",
        "_parser",
        "_poller",
        "_unsent",
        "body",
        "complete",
        "fault",
        "fd",
        "idle_since",
        "received_at",
        "request",
        "sock",
        "state",
        "status",
        "timing",
        "version",
    )

    def __init__(self, poller: Poller, address: tuple[str, int], family: int) -> None:
        self._poller = poller
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.request = -1  # the row being served, −1 none
        self.idle_since = 0.0
        self.received_at = 0.0
        self._unsent: memoryview | None = None
        self._first = True  # no request has been answered on this connection yet
        self._keep_alive = False
        self._clear()
        self._parser = httptools.HttpResponseParser(self)
        code = self.sock.connect_ex(address)
        self.state = State.CONNECTING
        self.fault = Reason.NONE if code in (0, errno.EINPROGRESS) else Reason.CONNECT
        poller.add(self.fd, WRITE)

    def _clear(self) -> None:
        self.status = 0
        self.version = b""
        self.timing = b""
        self.body: list[bytes] = []
        self.complete = False

    # -- towards the server ---------------------------------------------------------------

    def connected(self) -> bool:
        """The handshake is over (True), or ``fault`` says why it failed."""
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fault = Reason.CONNECT
            return False
        self.state = State.IDLE
        self._poller.change(self.fd, READ)
        return True

    def send(self, row: int, request: bytes) -> None:
        """Hand a whole request to the kernel; what does not fit follows through ``flush``."""
        self.request = row
        self.state = State.BUSY
        self._clear()
        try:
            sent = self.sock.send(request)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.fault = self._reset()
            return
        if sent < len(request):
            self._unsent = memoryview(request)[sent:]
            self._poller.change(self.fd, READ | WRITE)

    def flush(self) -> None:
        """Writable again: go on with a request that did not fit the socket's buffer."""
        if self._unsent is None:
            return
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.fault = self._reset()
            return
        if not self._unsent:
            self._unsent = None
            self._poller.change(self.fd, READ)

    # -- from the server ------------------------------------------------------------------

    def receive(self) -> None:
        """Read what is there: ``complete`` once the answer is whole, ``fault`` when it broke."""
        try:
            data = self.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received_at = clock()  # before the parser, whose time is ours and not the server's
        if not data:
            self.fault = self._reset()
            return
        if self.state is State.IDLE:  # an answer to nothing
            self.fault = Reason.MALFORMED_HTTP
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.fault = Reason.MALFORMED_HTTP

    def reusable(self) -> bool:
        """After a complete answer: may the next request go out here?"""
        self._first = False
        return self._unsent is None and self._keep_alive

    def retire(self) -> None:
        """Stop listening to it; the descriptor stays taken until ``sock.close()``."""
        self.state = State.CLOSED
        self._poller.remove(self.fd)
        del self._parser  # it points back here, and the generator runs without a cycle collector

    def _reset(self) -> Reason:
        untouched = self.status == 0 and not self.body
        return Reason.RESET_IDLE if untouched and not self._first else Reason.RESET

    # -- httptools' callbacks -------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 15 and name.lower() == b"x-model-version":
            self.version = value
        elif len(name) == 13 and name.lower() == b"server-timing":
            self.timing = value if not self.timing else self.timing + b", " + value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:  # an interim 1xx answer is not the answer
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()  # only known in here
        else:
            self.status = 0
