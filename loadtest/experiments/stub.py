"""A stand-in for the service whose behaviour is known exactly, to prove the load test against.

It answers ``POST /v1/score`` with scores that are a hash of (version, user, item), after a service
time drawn from a known distribution, through a known queue; it can drop, lie, mix versions, shed,
and switch versions through the admin route. It departs requests in *virtual* time: a service begins
when the one before it ended by calculation, so its own slowness does not add up in the queue.
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
from numpy.typing import NDArray

from loadtest.generator.poller import LONGEST_WAIT, READ, Poller, be_punctual, clock
from loadtest.units import seconds as parse_seconds

MIXER = np.uint64(0x9E3779B97F4A7C15)
REASONS = {200: "OK", 202: "Accepted", 401: "Unauthorized", 404: "Not Found", 429: "Too Many"}


@dataclass(frozen=True)
class StubSettings:
    """``servers`` = 0 means that nobody waits for anybody."""

    host: str = "127.0.0.1"
    port: int = 0
    admin_port: int | None = None
    admin_token: str = ""
    service: str = "constant:5ms"
    servers: int = 1
    queue: int = 0  # requests that may wait or be served; 0 = no limit, beyond it: 429
    drop_every: int = 0  # close the connection instead of answering every n-th request
    lie_every: int = 0  # move one score of every n-th answer
    mix_every: int = 0  # every n-th answer takes half its scores from another version
    fail_every: int = 0  # every n-th answer is a 500
    versions: tuple[str, ...] = ("stub-1", "stub-2")
    activation_s: float = 0.0  # how long an activation takes
    seed: int = 0


def stub_scores(version: str, user_id: int, item_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) in [0, 1), a hash of version, user and item: what an honest stub answers."""
    name = np.uint64(int.from_bytes(version.encode()[-8:], "little"))
    with np.errstate(over="ignore"):
        mixed = (item_ids.astype(np.uint64) + name) * MIXER ^ np.uint64(user_id)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
    return (mixed >> np.uint64(40)) / 2.0**24


def service_times(spec: str, seed: int) -> Callable[[], float]:
    """A source of service times in seconds: ``constant:5ms`` or ``exponential:5ms`` (its mean)."""
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
    """One client connection: collects a request, then carries its answer."""

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
        self.stub.accept(self)


class Stub:
    """Single-threaded, on the same poller as the generator."""

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
        """Until ``stop`` (SIGTERM or SIGINT in a process of its own)."""
        while not self._stopped:
            until = self._due[0][0] if self._due else clock() + LONGEST_WAIT
            for fd, _ in self._poller.wait(until):
                if fd in self._listeners:
                    self._welcome(*self._listeners[fd])
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

    def _welcome(self, listener: socket.socket, admin: bool) -> None:
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
        session.sock.setblocking(True)  # answers are small next to the socket's buffer
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

    def accept(self, session: Session) -> None:
        """A whole request has arrived: queue it and decide what becomes of it."""
        arrived = session.arrived
        if session.admin:
            return self._administer(session, arrived)
        if session.url == b"/stub/counts":
            return self._reply_at(arrived, session, lambda: _http(200, dict(self.counts)))
        if session.url == b"/v1/events":
            self.counts["events"] += 1
            return self._reply_at(arrived, session, lambda: _http(202, {"accepted": 1}))
        if session.url != b"/v1/score":
            return self._reply_at(arrived, session, lambda: _http(404, {"title": "not here"}))
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
        """(begin, end) of service: at the server that is free first, in virtual time."""
        if not self._free:
            return arrived, arrived + self._service()
        begins = max(arrived, self._free[0])
        ends = begins + self._service()
        heapq.heapreplace(self._free, ends)
        return begins, ends

    def _reply_at(self, when: float, session: Session, answer: Callable[[], bytes]) -> None:
        self.counts["replies"] += 1
        heapq.heappush(self._due, (when, self.counts["replies"], session, answer))

    def _score(self, asked: bytes, number: int, clocks: tuple[float, float, float] | None) -> bytes:
        settings, version = self.settings, self.version
        request = orjson.loads(asked)
        item_ids = np.array(request["candidates"], np.int64)
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
            item_ids, scores = item_ids[best], scores[best]
        answer = {
            "model_version": version,
            "request_id": str(number),
            "item_ids": item_ids.tolist(),
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

    def _administer(self, session: Session, arrived: float) -> None:
        """``POST /admin/models/{version}/activate`` and ``GET /admin/models``, behind the token."""
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


def run(settings: StubSettings, announce: Callable[[Stub], None]) -> Counter[str]:
    """Serve until SIGTERM or SIGINT; what it did."""
    be_punctual()
    stub = Stub(settings)
    signal.signal(signal.SIGTERM, stub.stop)
    signal.signal(signal.SIGINT, stub.stop)
    announce(stub)
    stub.serve()
    if stub.late:
        stub.counts["late_p99_us"] = int(1e6 * np.quantile(stub.late, 0.99))
    return stub.counts
