"""Non-blocking HTTP/1.1 client connection: one request at a time.

Parsing is httptools (llhttp). This code runs within measured latency, so it does little: no
retries, no redirects, no decoding of bodies.
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
    """A socket with the unsent rest of a request and the answer read so far."""

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
        """Finish the handshake: True, or False with ``fault`` set."""
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fault = Reason.CONNECT
            return False
        self.state = State.IDLE
        self._poller.change(self.fd, READ)
        return True

    def send(self, row: int, request: bytes) -> None:
        """Send a whole request; ``flush`` sends what does not fit into the socket's buffer."""
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
        """Send more of an unfinished request once the socket is writable."""
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
        """Read what is available; set ``complete`` at the end of an answer, ``fault`` on error."""
        try:
            data = self.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received_at = clock()  # before parsing, which is not the server's time
        if not data:
            self.fault = self._reset()
            return
        if self.state is State.IDLE:  # no request was sent
            self.fault = Reason.MALFORMED_HTTP
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fault = Reason.MALFORMED_HTTP

    def reusable(self) -> bool:
        """Whether the connection can take another request after a complete answer."""
        self._first = False
        return self._unsent is None and self._keep_alive

    def retire(self) -> None:
        """Stop polling; the descriptor stays allocated until ``sock.close()``."""
        self.state = State.CLOSED
        self._poller.remove(self.fd)
        del self._parser  # a reference cycle, and the generator runs without garbage collection

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
        if self.status >= 200:  # 1xx answers are interim
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()  # valid only in this callback
        else:
            self.status = 0
