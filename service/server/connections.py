"""Every connection of one port by what it is doing, each state bounded in number and in time.

    headers   connected, or a request begun; its headers are not all here
    body      the headers are here, the body is not
    in_flight the request is whole, its answer is not out
    idle      between two requests
    closing   answered for the last time; the answer is still on its way
    lingering refused with more to come, which is thrown away so that the refusal is read

One sweep looks at whoever has been in a state the longest; nothing is timed byte by byte. Where a
state is full, the one there the longest makes room: a healthy request passes through ``headers``
and ``body`` in less time than a flood of silent ones takes to push it out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from service.observability.metrics import Metrics
from service.settings import Settings

LINGER_S = 0.5
# Often, and few at a time: refusing fifty at once would hold up whoever is being answered. The
# later the one there the longest, the faster, so that a flood is spread over the time there is:
# 500 who came at once are gone 1.2 s after their time.
SWEEP_EVERY_S = 0.005
AT_REST_S = 0.05  # to the next look, where nobody is late: an idle process should be idle
CALM_PER_S, FASTER_PER_S = 60.0, 600.0  # of each state; and so many more for each second too late
MOST_A_SWEEP = 4  # of each state
MS = 1e-3
BURST_BYTES, CALM_SHARE = 8 * 2**20, 0.125


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request, and of how many may be in a state."""

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
    receiving_bytes: int  # of all bodies that are not whole

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            header_bytes=settings.max_header_bytes,
            headers=settings.max_headers,
            body_bytes=settings.max_body_bytes,
            headers_s=settings.headers_timeout_ms * MS,
            body_s=settings.body_timeout_ms * MS,
            answer_s=settings.answer_timeout_ms * MS,
            keep_alive_s=settings.keep_alive_s,
            idle=settings.max_idle_connections,
            receiving=settings.max_receiving_connections,
            in_flight=settings.max_in_flight_connections,
            receiving_bytes=max(settings.max_receiving_bytes, settings.max_body_bytes),
        )


class Connection(Protocol):
    crowd: Crowd | None

    def cut(self) -> bool:
        """Leave this state now, refused with a problem document where that is possible.

        False: it was ourselves who kept the client waiting; its time begins anew.
        """

    def abort(self) -> None: ...

    def give_way(self) -> None:
        """Let go of the bytes that are held, refused where that is possible."""

    def say_last(self) -> None:
        """The answer under way is the last one."""

    def holds_answer(self) -> bool:
        """Whether part of an answer has not been taken by the client."""


class Crowd:
    """The connections in one state, the one there the longest first."""

    __slots__ = ("due", "members", "most", "name", "seconds")

    def __init__(self, name: str, seconds: float, most: float) -> None:
        self.name, self.seconds, self.most = name, seconds, most
        self.members: OrderedDict[Connection, float] = OrderedDict()  # since when
        self.due = 1.0  # who may be cut in this sweep

    def pace(self, now: float) -> None:
        """For one more sweep: a single late one goes at once, many go the faster the later."""
        late = self.lateness(now)
        more = SWEEP_EVERY_S * (CALM_PER_S + FASTER_PER_S * late)
        self.due = 1.0 if late < 0 else min(self.due + more, MOST_A_SWEEP)

    def lateness(self, now: float) -> float:
        """Seconds beyond its time, of whoever is here the longest."""
        if not self.members:
            return -math.inf
        return now - next(iter(self.members.values())) - self.seconds


class Connections:
    """On the event loop alone."""

    def __init__(
        self, limits: Limits, metrics: Metrics, on_leave: Callable[[], None] = lambda: None
    ) -> None:
        self.limits, self.metrics, self._on_leave = limits, metrics, on_leave
        self.headers = Crowd("headers", limits.headers_s, limits.receiving)
        self.body = Crowd("body", limits.body_s, limits.receiving)
        self.in_flight = Crowd("in_flight", math.inf, math.inf)  # newcomers are refused instead
        self.idle = Crowd("idle", limits.keep_alive_s, limits.idle)
        self.closing = Crowd("closing", limits.answer_s, limits.idle)
        self.lingering = Crowd("lingering", LINGER_S, limits.receiving)
        self.crowds = (
            self.headers,
            self.body,
            self.in_flight,
            self.idle,
            self.closing,
            self.lingering,
        )
        self.untaken: OrderedDict[Connection, float] = OrderedDict()  # slow readers, since when
        self.draining = False
        self.held: dict[Connection, int] = {}  # bytes of bodies that are not whole, longest first
        self.held_bytes = self._most_held = 0

    def __len__(self) -> int:
        return sum(len(crowd.members) for crowd in self.crowds)

    def move(self, connection: Connection, crowd: Crowd) -> None:
        old = connection.crowd
        if old is not None:
            del old.members[connection]
        connection.crowd = crowd
        crowd.members[connection] = monotonic()
        if old is not crowd and len(crowd.members) > crowd.most:
            self._cut(next(iter(crowd.members)), "crowded")

    def make_room(self) -> bool:
        """Close the connection that is the least loss, for the sake of a new one. False: all are
        being answered."""
        for crowd in (self.idle, self.lingering, self.closing, self.headers, self.body):
            if crowd.members:
                connection = next(iter(crowd.members))
                if crowd is self.idle:
                    connection.cut()
                else:  # at once: a refusal would be one more that lingers
                    connection.abort()
                self.metrics.connections_cut.labels("crowded").inc()
                return True
        return False

    def leave(self, connection: Connection) -> None:
        if connection.crowd is not None:
            del connection.crowd.members[connection]
            connection.crowd = None
            self._on_leave()
        self.hold(connection, 0)
        self.untaken.pop(connection, None)

    def hold(self, connection: Connection, size: int) -> None:
        """So many bytes of unfinished bodies are in memory for this connection."""
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
        """Refuse the connection that has been holding the longest, of those that hold no less than
        the average: many that hold little are not what fills the memory."""
        average = self.held_bytes // len(self.held)
        heaviest = next(one for one, size in self.held.items() if size >= average)
        self.metrics.connections_cut.labels("crowded").inc()
        heaviest.give_way()
        self.hold(heaviest, 0)

    def burst_is_over(self) -> bool:
        """Whether much was held since this last said so, and little is now: pages that the
        allocator keeps can be given back."""
        if self._most_held < BURST_BYTES or self.held_bytes > self._most_held * CALM_SHARE:
            return False
        self._most_held = self.held_bytes
        return True

    def awaits_reader(self, connection: Connection) -> None:
        """Part of an answer is still here; its client has a limited time to take it."""
        self.untaken[connection] = monotonic()
        self.untaken.move_to_end(connection)

    def sweep(self) -> float:
        """Cut who is late, the latest first. Seconds until it should be done again."""
        now, late = monotonic(), False
        for crowd in self.crowds:
            crowd.pace(now)
            late = late or crowd.lateness(now) >= 0
            while crowd.due >= 1 and crowd.lateness(now) >= 0:
                crowd.due -= 1
                self._cut(next(iter(crowd.members)), crowd.name)
        if self.untaken:
            self._abort_slow_readers(now)
        return SWEEP_EVERY_S if late else AT_REST_S

    def _abort_slow_readers(self, now: float) -> None:
        for connection, since in list(self.untaken.items()):
            if not connection.holds_answer():
                del self.untaken[connection]
            elif now - since >= self.limits.answer_s:
                del self.untaken[connection]
                self.metrics.connections_cut.labels("answer").inc()
                connection.abort()

    def _cut(self, connection: Connection, why: str) -> None:
        if connection.cut():
            self.metrics.connections_cut.labels(why).inc()
