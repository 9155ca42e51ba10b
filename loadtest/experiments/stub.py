"""Stub of the service with known scores and a known delay distribution.

Answers ``POST /v1/score`` with a hash of (version, user, item) as scores, after a queue and a
service time from a known distribution; can drop requests, falsify scores, mix versions, shed, and
switch versions by the admin API. Queueing is computed in virtual time (service begins at the
computed end of the one before), so that the stub's own delays do not accumulate.
"""

from __future__ import annotations

import heapq
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy as np
import orjson

from loadtest.generator.poller import LONGEST_WAIT, READ, Poller, clock, request_realtime
from loadtest.oracle.stub_oracle import stub_numbers, stub_scores
from loadtest.units import seconds as parse_seconds

REASONS = {200: "OK", 202: "Accepted", 401: "Unauthorized", 404: "Not Found", 429: "Too Many"}


@dataclass(frozen=True)
class StubSettings:
    """Settings of a stub; ``servers`` = 0: unlimited, without a queue."""

    host: str = "127.0.0.1"
    port: int = 0
    admin_port: int | None = None
    admin_token: str = ""
    service: str = "constant:5ms"
    servers: int = 1
    queue: int = 0  # most requests in queue and service, beyond it 429; 0: no limit
    drop_every: int = 0  # close the connection instead of answering every n-th request
    lie_every: int = 0  # falsify a score of every n-th answer
    mix_every: int = 0  # every n-th answer takes half its scores from another version
    fail_every: int = 0  # every n-th answer is a 500
    versions: tuple[str, ...] = ("stub-1", "stub-2")
    activation_s: float = 0.0
    seed: int = 0


def service_times(spec: str, seed: int) -> Callable[[], float]:
    """Parse ``constant:5ms`` or ``exponential:5ms`` (the mean) into a source of seconds."""
    name, _, value = spec.partition(":")
    mean = parse_seconds(value)
    rng = np.random.default_rng(seed)
    if name == "constant":
        return lambda: mean
    if name == "exponential":
        return lambda: float(rng.exponential(mean))
    raise ValueError(f"service: {spec!r} should be constant:TIME or exponential:TIME")


@dataclass
class Session:
    """A client connection and the request being parsed from it."""

    stub: Stub
    sock: socket.socket
    admin: bool = False
    body: list[bytes] = field(default_factory=list)
    url: bytes = b""
    arrived: float = 0.0
    timing: bool = False
    token: bytes = b""

    def __post_init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.body, self.url, self.timing, self.token = [], b"", False, b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-server-timing":
            self.timing = True
        elif name.lower() == b"authorization":
            self.token = value.removeprefix(b"Bearer ")

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.stub.on_request(self)


class Stub:
    """The server: single-threaded, on the poller of the generator."""

    def __init__(self, settings: StubSettings) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.version = settings.versions[0]
        self._service = service_times(settings.service, settings.seed)
        self._free = [0.0] * settings.servers  # when each server is free again, a heap
        self._due: list[tuple[float, int, Session, Callable[[], bytes]]] = []
        self._sessions: dict[int, Session] = {}
        self._poller = Poller()
        self._listeners: dict[int, tuple[socket.socket, bool]] = {}
        self.port = self._listen(settings.port, admin=False)
        self.admin_port = (
            None if settings.admin_port is None else self._listen(settings.admin_port, admin=True)
        )
        self._stopped = False
        self.late: deque[float] = deque(maxlen=100_000)  # seconds from due to answered

    def _listen(self, port: int, *, admin: bool) -> int:
        listener = socket.create_server((self.settings.host, port), backlog=4096)
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, admin)
        self._poller.add(listener, READ)
        return int(listener.getsockname()[1])

    def stop(self, *_: object) -> None:
        self._stopped = True

    def serve(self) -> None:
        """Serve until ``stop`` is called."""
        while not self._stopped:
            until = self._due[0][0] if self._due else clock() + LONGEST_WAIT
            for fd, _ in self._poller.wait(until):
                if fd in self._listeners:
                    self._accept(*self._listeners[fd])
                elif fd in self._sessions:
                    self._read(self._sessions[fd])
            while self._due and self._due[0][0] <= clock():
                when, _, session, answer = heapq.heappop(self._due)
                self._send(session, answer())
                self.late.append(clock() - when)
        for session in list(self._sessions.values()):
            self._drop(session)
        for listener, _ in self._listeners.values():
            listener.close()
        self._poller.close()

    # -- sockets --------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, admin: bool) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sessions[sock.fileno()] = Session(self, sock, admin)
        self._poller.add(sock, READ)

    def _read(self, session: Session) -> None:
        try:
            data = session.sock.recv(1 << 18)
            session.arrived = clock()
            if data:
                session.parser.feed_data(data)
                return
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            pass
        self._drop(session)

    def _send(self, session: Session, answer: bytes) -> None:
        if session.sock.fileno() < 0:
            self.counts["gone"] += 1
            return
        session.sock.setblocking(True)  # answers fit into the socket's buffer
        try:
            session.sock.sendall(answer)
            session.sock.setblocking(False)
        except OSError:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        if self._sessions.pop(session.sock.fileno(), None) is not None:
            self._poller.remove(session.sock)
            session.sock.close()

    # -- answers --------------------------------------------------------------------------

    def on_request(self, session: Session) -> None:
        """Route a complete request and schedule its answer."""
        arrived = session.arrived
        if session.admin:
            return self._on_admin_request(session, arrived)
        if session.url == b"/stub/counts":
            return self._reply_at(arrived, session, lambda: _http(200, dict(self.counts)))
        if session.url == b"/v1/events":
            self.counts["events"] += 1
            return self._reply_at(arrived, session, lambda: _http(202, {"accepted": 1}))
        if session.url != b"/v1/score":
            return self._reply_at(arrived, session, lambda: _http(404, {"title": "not found"}))
        self.counts["requests"] += 1
        number = self.counts["requests"]
        settings = self.settings
        if settings.queue and len(self._due) >= settings.queue:
            self.counts["shed"] += 1
            return self._reply_at(arrived, session, lambda: _http(429, {"title": "over capacity"}))
        begins, ends = self._through_queue(arrived)
        if settings.drop_every and number % settings.drop_every == 0:
            self.counts["dropped"] += 1
            self._drop(session)
            return None
        if settings.fail_every and number % settings.fail_every == 0:
            self.counts["failed"] += 1
            return self._reply_at(ends, session, lambda: _http(500, {"title": "on purpose"}))
        clocks = (arrived, begins, ends) if session.timing else None
        answer = self._score(b"".join(session.body), number, clocks)  # ready before it is due
        return self._reply_at(ends, session, lambda: answer)

    def _through_queue(self, arrived: float) -> tuple[float, float]:
        """Compute (begin, end) of service at the server that is free first, in virtual time."""
        if not self._free:
            return arrived, arrived + self._service()
        begins = max(arrived, self._free[0])
        ends = begins + self._service()
        heapq.heapreplace(self._free, ends)
        return begins, ends

    def _reply_at(self, when: float, session: Session, answer: Callable[[], bytes]) -> None:
        self.counts["replies"] += 1
        heapq.heappush(self._due, (when, self.counts["replies"], session, answer))

    def _score(self, body: bytes, number: int, clocks: tuple[float, float, float] | None) -> bytes:
        settings, version = self.settings, self.version
        request = orjson.loads(body)
        candidates = request["candidates"]
        item_ids = stub_numbers(candidates)
        scores = stub_scores(version, request["user_id"], item_ids)
        if settings.lie_every and number % settings.lie_every == 0:
            self.counts["lies"] += 1
            scores[-1] = abs(scores[-1] - 2e-4)
        if settings.mix_every and number % settings.mix_every == 0:
            self.counts["mixed"] += 1
            other = next(name for name in settings.versions if name != version)
            half = item_ids.size // 2
            scores[half:] = stub_scores(other, request["user_id"], item_ids[half:])
        if top_k := request.get("top_k"):
            best = np.argsort(-scores, kind="stable")[:top_k]
            candidates, scores = [candidates[place] for place in best.tolist()], scores[best]
        answer = {
            "model_version": version,
            "request_id": str(number),
            "item_ids": candidates,
            "scores": scores.tolist(),
            "cold_user": False,
            "unknown_items": [],
            "cold_items": [],
            "degraded": [],
        }
        headers = f"X-Model-Version: {version}\r\n"
        if clocks is not None:
            arrived, begins, ends = clocks
            parts = {"queue": begins - arrived, "engine": ends - begins}
            parts["total"] = sum(parts.values())
            timing = ", ".join(f"{name};dur={1e3 * took:.3f}" for name, took in parts.items())
            headers += f"Server-Timing: {timing}\r\n"
        return _http(200, answer, headers)

    def _on_admin_request(self, session: Session, arrived: float) -> None:
        """Serve ``GET /admin/models`` and ``POST /admin/models/{version}/activate``, by token."""
        if session.token.decode() != self.settings.admin_token:
            return self._reply_at(arrived, session, lambda: _http(401, {"title": "wrong token"}))
        parts = session.url.decode().strip("/").split("/")
        if parts == ["admin", "models"]:
            models = [
                {"version": name, "state": "active" if name == self.version else "ready"}
                for name in self.settings.versions
            ]
            listed = {"active": self.version, "models": models}
            return self._reply_at(arrived, session, lambda: _http(200, listed))
        if len(parts) != 4 or parts[3] != "activate" or parts[2] not in self.settings.versions:
            return self._reply_at(arrived, session, lambda: _http(404, {"title": "no such model"}))

        def activate() -> bytes:
            self.version = parts[2]
            self.counts["activations"] += 1
            return _http(200, {"version": self.version, "state": "active"})

        return self._reply_at(arrived + self.settings.activation_s, session, activate)


def _http(status: int, document: Any, headers: str = "") -> bytes:
    body = orjson.dumps(document)
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode("latin-1") + body


def run(settings: StubSettings, on_ready: Callable[[Stub], None]) -> Counter[str]:
    """Serve until SIGTERM or SIGINT; return the counts."""
    request_realtime()
    stub = Stub(settings)
    signal.signal(signal.SIGTERM, stub.stop)
    signal.signal(signal.SIGINT, stub.stop)
    on_ready(stub)
    stub.serve()
    if stub.late:
        stub.counts["late_p99_us"] = int(1e6 * np.quantile(stub.late, 0.99))
    return stub.counts
