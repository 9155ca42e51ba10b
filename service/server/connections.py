"""Tracks the connections of one port by state, and bounds each state in number and time.

    headers   connected, or a request has begun; its headers are incomplete
    body      the headers are complete, the body is not
    in_flight the request is complete, its answer is not sent
    streaming likewise, of an answer that goes on until its reader leaves or the server stops
    idle      between two requests
    closing   the last answer is being sent
    lingering refused while the client sends; its data is discarded so that the refusal is read

A sweep expires the connections that have been in a state the longest; there is no timer per
connection. In a full state the oldest connection is evicted: a healthy request passes through
``headers`` and ``body`` faster than a flood of silent connections evicts it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from service.observability.metrics import Metrics
from service.server.lingering import LINGER_S
from service.settings import Settings

# Frequent small sweeps, because refusing many connections at once would delay answers. The longer
# the oldest connection is overdue, the more are closed, which spreads the end of a flood.
SWEEP_EVERY_S = 0.005
AT_REST_S = 0.05  # between sweeps while nothing is overdue, so that an idle process is idle
CALM_PER_S, FASTER_PER_S = 60.0, 600.0  # closed in each state; and more per second overdue
MOST_A_SWEEP = 4  # in each state
MS = 1e-3
BURST_BYTES, CALM_SHARE = 8 * 2**20, 0.125


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a request, and of connections in each state."""

    header_bytes: int  # request line and headers
    headers: int
    body_bytes: int
    headers_s: float
    body_s: float
    answer_s: float
    keep_alive_s: float
    idle: int
    receiving: int
    in_flight: int
    streaming: int  # more are refused
    receiving_bytes: int  # of all incomplete bodies

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        return cls(
            header_bytes=settings.max_header_bytes,
            headers=settings.max_headers,
            body_bytes=settings.largest_body_bytes,
            headers_s=settings.headers_timeout_ms * MS,
            body_s=settings.body_timeout_ms * MS,
            answer_s=settings.answer_timeout_ms * MS,
            keep_alive_s=settings.keep_alive_s,
            idle=settings.max_idle_connections,
            receiving=settings.max_receiving_connections,
            in_flight=settings.max_in_flight_connections,
            streaming=settings.console_streams,
            receiving_bytes=max(settings.max_receiving_bytes, settings.largest_body_bytes),
        )


class Connection(Protocol):
    state: ConnectionState | None

    def expire(self) -> bool:
        """Leave this state now, with an error response if possible.

        False: the server had paused reading; the timeout starts again.
        """

    def abort(self) -> None: ...

    def release_body(self) -> None:
        """Release the held bytes, with an error response if possible."""

    def close_after_answer(self) -> None:
        """Make the answer under way the last one."""

    def has_unsent(self) -> bool:
        """Whether part of an answer has not been sent."""


class ConnectionState:
    """The connections in one state, the oldest first."""

    __slots__ = ("due", "members", "most", "name", "seconds")

    def __init__(self, name: str, seconds: float, most: float) -> None:
        self.name, self.seconds, self.most = name, seconds, most
        self.members: OrderedDict[Connection, float] = OrderedDict()  # since when
        self.due = 1.0  # how many this sweep may expire

    def pace(self, now: float) -> None:
        """Set how many connections this sweep expires: at least one; more the longer the oldest is
        overdue."""
        late = self.lateness(now)
        more = SWEEP_EVERY_S * (CALM_PER_S + FASTER_PER_S * late)
        self.due = 1.0 if late < 0 else min(self.due + more, MOST_A_SWEEP)

    def lateness(self, now: float) -> float:
        """Seconds that the oldest connection is overdue."""
        if not self.members:
            return -math.inf
        return now - next(iter(self.members.values())) - self.seconds


class ConnectionTracker:
    """Used on the event loop alone."""

    def __init__(
        self,
        limits: ConnectionLimits,
        metrics: Metrics,
        on_leave: Callable[[], None] = lambda: None,
    ) -> None:
        self.limits, self.metrics, self._on_leave = limits, metrics, on_leave
        self.headers = ConnectionState("headers", limits.headers_s, limits.receiving)
        self.body = ConnectionState("body", limits.body_s, limits.receiving)
        self.in_flight = ConnectionState(
            "in_flight", math.inf, math.inf
        )  # new requests are refused
        self.streaming = ConnectionState("streaming", math.inf, math.inf)
        self.idle = ConnectionState("idle", limits.keep_alive_s, limits.idle)
        self.closing = ConnectionState("closing", limits.answer_s, limits.idle)
        self.lingering = ConnectionState("lingering", LINGER_S, limits.receiving)
        self.states = (
            self.headers,
            self.body,
            self.in_flight,
            self.streaming,
            self.idle,
            self.closing,
            self.lingering,
        )
        self.unsent: OrderedDict[Connection, float] = OrderedDict()  # answers, since when
        self.draining = False
        self.held: dict[Connection, int] = {}  # bytes of incomplete bodies, oldest first
        self.held_bytes = self._most_held = 0

    def __len__(self) -> int:
        return sum(len(state.members) for state in self.states)

    def move(self, connection: Connection, state: ConnectionState) -> None:
        old = connection.state
        if old is not None:
            del old.members[connection]
        connection.state = state
        state.members[connection] = monotonic()
        if old is not state and len(state.members) > state.most:
            self._expire(next(iter(state.members)), "crowded")

    def make_room(self) -> bool:
        """Evict the connection that is the least loss, in favour of a new one. False: all are being
        answered."""
        order = self.idle, self.lingering, self.closing, self.streaming, self.headers, self.body
        for state in order:
            if state.members:
                connection = next(iter(state.members))
                if state is self.idle:
                    connection.expire()
                else:  # not refused: it would linger
                    connection.abort()
                self.metrics.connections_cut.labels("crowded").inc()
                return True
        return False

    def leave(self, connection: Connection) -> None:
        if connection.state is not None:
            del connection.state.members[connection]
            connection.state = None
            self._on_leave()
        self.hold(connection, 0)
        self.unsent.pop(connection, None)

    def hold(self, connection: Connection, size: int) -> None:
        """Set how many bytes of incomplete bodies this connection holds in memory."""
        before = self.held.get(connection, 0)
        if size == before:
            return
        self.held_bytes += size - before
        if not size:
            del self.held[connection]
            return
        self.held[connection] = size
        self._most_held = max(self._most_held, self.held_bytes)
        while self.held_bytes > self.limits.receiving_bytes:
            self._relieve()

    def _relieve(self) -> None:
        """Refuse the oldest connection of those that hold at least the average: connections that
        hold little do not fill the memory."""
        average = self.held_bytes // len(self.held)
        heaviest = next(one for one, size in self.held.items() if size >= average)
        self.metrics.connections_cut.labels("crowded").inc()
        heaviest.release_body()
        self.hold(heaviest, 0)

    def burst_is_over(self) -> bool:
        """Whether much was held since the last True and little is held now, so that the
        allocator's pages can be returned."""
        if self._most_held < BURST_BYTES or self.held_bytes > self._most_held * CALM_SHARE:
            return False
        self._most_held = self.held_bytes
        return True

    def track_unsent(self, connection: Connection) -> None:
        """Start the time that the client has to read the rest of an answer."""
        self.unsent[connection] = monotonic()
        self.unsent.move_to_end(connection)

    def sweep(self) -> float:
        """Expire overdue connections, the oldest first. Returns seconds to the next sweep."""
        now, late = monotonic(), False
        for state in self.states:
            state.pace(now)
            late = late or state.lateness(now) >= 0
            while state.due >= 1 and state.lateness(now) >= 0:
                state.due -= 1
                self._expire(next(iter(state.members)), state.name)
        if self.unsent:
            self._abort_slow_readers(now)
        return SWEEP_EVERY_S if late else AT_REST_S

    def _abort_slow_readers(self, now: float) -> None:
        for connection, since in list(self.unsent.items()):
            if not connection.has_unsent():
                del self.unsent[connection]
            elif now - since >= self.limits.answer_s:
                del self.unsent[connection]
                self.metrics.connections_cut.labels("answer").inc()
                connection.abort()

    def _expire(self, connection: Connection, why: str) -> None:
        if connection.expire():
            self.metrics.connections_cut.labels(why).inc()
