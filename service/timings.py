"""One timings record per request: where its time went, to the last microsecond."""

from __future__ import annotations

from time import perf_counter

# In the order a request passes them. What belongs to none of them is OTHER, so that the stages
# always sum to the total.
STAGES = ("receive", "parse", "store", "table", "items", "queue", "history", "rank", "encode")
OTHER = "other"


class StageTimer:
    """Laps on one clock (``perf_counter``, seconds). A stage may be passed more than once."""

    __slots__ = ("_lapped", "ended", "seconds", "started")

    def __init__(self) -> None:
        self.started = self._lapped = self.ended = perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str, at: float | None = None) -> None:
        """Time since the last lap belongs to ``stage``; ``at`` is when it ended, if not now."""
        now = perf_counter() if at is None else at
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._lapped
        self._lapped = now

    @property
    def lapped(self) -> float:
        """When the last lap ended."""
        return self._lapped

    def skip(self) -> None:
        """Time since the last lap belongs to no stage."""
        self._lapped = perf_counter()

    def end(self) -> None:
        """The total is known; OTHER is what remains."""
        self.ended = perf_counter()
        self.seconds[OTHER] = self.total - sum(self.seconds.values())

    @property
    def total(self) -> float:
        return self.ended - self.started

    def server_timing(self) -> str:
        """The W3C Server-Timing header: milliseconds by stage, then the total."""
        parts = [f"{stage};dur={1e3 * took:.3f}" for stage, took in self.seconds.items()]
        return ", ".join([*parts, f"total;dur={1e3 * self.total:.3f}"])
