"""The context of one request: its id, headers, stage timer, priority, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import Any, Protocol, cast

from service.errors import InvalidHeader

# In the order a request passes them. What belongs to none of them is OTHER, so that the stages
# always sum to the total.
STAGES = ("receive", "parse", "store", "table", "items", "queue", "history", "rank", "encode")
OTHER = "other"
PRIORITY_HEADER = "X-Priority"
CONTEXT = "context"  # in an ASGI scope: the RequestContext
CONNECTION = "connection"  # in a scope: the Connection; another server has none
TARGET_HOST = "target_host"  # in a scope: authority of a target in absolute form
UNMATCHED = "unmatched"  # the route of every path that has none
UNKNOWN_BYTES = 262_144
# They decide whether this process lives, so no limit keeps them from an answer.
PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})


class Priority(Enum):
    """``online``: a person waits. ``batch``: a job that can come again, and yields."""

    # Enum's own hash is Python, and dictionaries by class are looked into all the time.
    __hash__ = object.__hash__

    ONLINE = "online"
    BATCH = "batch"

    @property
    def priority(self) -> Priority:
        return self


class HasPriority(Protocol):
    """A priority, or an object whose priority may fall while it waits: see ``Permit.defer``."""

    @property
    def priority(self) -> Priority: ...


_KNOWN: dict[bytes | None, Priority] = {p.value.encode(): p for p in Priority}
_KNOWN[None] = Priority.ONLINE


def priority_of(header: bytes | None) -> Priority:
    """Parse X-Priority; online without a header. InvalidHeader names it."""
    try:
        return _KNOWN[header]
    except KeyError:
        known = " or ".join(priority.value for priority in Priority)
        raise InvalidHeader.of(PRIORITY_HEADER, detail=f"should be {known}") from None


class StageTimer:
    """Laps on one clock (``perf_counter``, seconds). A stage may be passed more than once."""

    __slots__ = ("_lapped", "ended", "seconds", "started", "total")

    def __init__(self) -> None:
        self.started = self._lapped = self.ended = perf_counter()
        self.total = 0.0  # once it has ended
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str, at: float | None = None) -> None:
        """Add the time since the last lap to ``stage``; ``at`` is when it ended, if not now."""
        now = perf_counter() if at is None else at
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._lapped
        self._lapped = now

    @property
    def lapped(self) -> float:
        """When the last lap ended."""
        return self._lapped

    def skip(self) -> None:
        """Leave the time since the last lap to no stage."""
        self._lapped = perf_counter()

    def end(self) -> None:
        """Fix the total; OTHER is what remains of it."""
        self.ended = perf_counter()
        self.total = self.ended - self.started
        self.seconds[OTHER] = self.total - sum(self.seconds.values())

    def server_timing(self) -> str:
        """The W3C Server-Timing header: milliseconds by stage, then the total."""
        parts = [f"{stage};dur={1e3 * took:.3f}" for stage, took in self.seconds.items()]
        return ", ".join([*parts, f"total;dur={1e3 * self.total:.3f}"])


class Connection(Protocol):
    """What our own server tells of a request's connection, beyond ASGI."""

    def whole_body(self) -> bytes | None:
        """Take the body, if all of it is here and none of it was taken; ``receive`` waits."""

    @property
    def has_left(self) -> bool:
        """The client has closed its connection."""

    def watch(self, left: Callable[[], None] | None) -> None:
        """Call ``left`` when that happens, from the event loop; None: no longer."""

    @property
    def has_half_closed(self) -> bool:
        """The client sends no more (FIN). It may have gone away; only a write would tell."""

    def watch_half_close(self, half_closed: Callable[[], None] | None) -> None:
        """Call ``half_closed`` when that happens, from the event loop; None: no longer."""

    def stream(self, end: Callable[[], None]) -> bool:
        """Count the answer as a stream, which has no time limit; False: there are too many.

        ``end`` is called from the event loop when the server wants the answer to end.
        """


class RequestStats(Protocol):
    """Statistics of the version that answers."""

    def ended(self, status: int, timer: StageTimer) -> None: ...


class LoopCharge(Protocol):
    """A request's place in the event loop's budget: see ``service.admission.loop_charge``."""

    async def enter(self, size: int = 0, deadline: float = ...) -> None: ...

    async def turn(self, deadline: float = ...) -> None: ...

    async def turned_away(self, size: int) -> None: ...

    def spent(self, seconds: float) -> None: ...


@dataclass(slots=True)
class RequestContext:
    """What is known of one request, gathered as it goes."""

    request_id: str
    headers: Mapping[bytes, bytes]  # names in lower case; values of one given twice are joined
    timer: StageTimer = field(default_factory=StageTimer)
    status: int = 0  # of the answer; 0 until there is one
    problem: str | None = None
    route: str | None = None  # of scoring, or where it was answered before any route was
    priority: Priority = Priority.ONLINE
    connection: Connection | None = None  # until it is answered
    caller: str | None = None  # the name of its API key
    added: tuple[tuple[bytes, bytes], ...] = ()  # headers of its answer, a refusal's too
    model_version: str | None = None
    role: str | None = None  # in which that version answers: see ``registry.ROLES``
    stats: RequestStats | None = None  # of that version
    user_id: int | str | None = None  # as the caller gave it
    candidates: int = 0
    after_answer: Callable[[], None] | None = None  # called once the answer has been sent
    charge: LoopCharge | None = None  # of the loop's budget, for what is no scoring
    inflated: int = 0  # bytes of a body that came compressed

    def header(self, name: bytes) -> str | None:
        """``name`` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def announced(self) -> int:
        """Bytes of the body; one in chunks is of unknown length, and taken for large."""
        length = self.headers.get(b"content-length")
        if length is None:
            return UNKNOWN_BYTES if b"transfer-encoding" in self.headers else 0
        return int(length) if len(length) < 12 and length.isdigit() else UNKNOWN_BYTES


def context_of(scope: Mapping[str, Any]) -> RequestContext:
    return cast(RequestContext, scope[CONTEXT])


def fresh_id() -> str:
    """Return 32 random hexadecimal digits. They are no secret, so the system's generator is not
    asked for each."""
    return f"{random.getrandbits(128):032x}"
