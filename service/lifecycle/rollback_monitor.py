"""Monitors a new version during its first minutes and triggers its rollback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import monotonic

import numpy as np

from service.lifecycle.comparison import Shape, compare
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry
from service.observability.background import begin, failed, keep
from service.observability.logs import logger
from service.observability.version_stats import KINDS, shape_of

LOOK_EVERY_S = 0.25
FEWEST_FAILURES = 5  # more than a few bad requests
FEWEST_ANSWERS = 459  # for a p99 with 99% confidence, if none exceeds it
FEWEST_ALIKE = 100  # answers of one kind, for its p99 to be a reference
FEWEST_SLOW = 10
LEAST_MS = 2.0  # difference below which a ratio of two p99 is noise
SHAPES = 4  # to compare two versions on
AGAIN_S = 10.0  # after a comparison that confirmed nothing; doubled each time


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much worse a new version may be."""

    window_s: float  # 0: no monitoring
    error_rate: float
    p99_ratio: float  # to the p99 of the previous version; 0: not checked


@dataclass(frozen=True, slots=True)
class Slowness:
    """A suspected slowdown, by the version or by its requests."""

    reason: str
    shapes: tuple[Shape, ...]  # of the slow requests
    by_deadlines: bool = False  # which queueing may cause as well


class RollbackWindow:
    """Compares a new version with the one it replaced, from the switch on.

    Each p99 is compared for requests of one kind (size of list and history), so that larger
    requests do not count as a slowdown.
    """

    def __init__(self, new: LoadedModel, old: LoadedModel, bounds: Bounds) -> None:
        self.version, self.before = new, old.name
        self._bounds, self._began = bounds, monotonic()
        self._limits: dict[int, float] = {}  # kind -> seconds
        self._limit_of = np.full(KINDS, np.nan)  # (KINDS,) the same
        kinds, seconds = old.stats.latest()
        for kind, count in Counter(kinds.tolist()).items():
            if count >= FEWEST_ALIKE and bounds.p99_ratio:
                usual = float(np.quantile(seconds[kinds == kind], 0.99))
                limit = max(bounds.p99_ratio * usual, usual + LEAST_MS / 1e3)
                self._limits[kind] = self._limit_of[kind] = limit
        self._expired_before = old.stats.expired / max(1, old.stats.since_mark)
        self._compared, self._again_at = 0, 0.0
        new.stats.mark()

    @property
    def over(self) -> bool:
        return monotonic() - self._began > self._bounds.window_s

    def violation(self) -> str | None:
        """Describe a failure rate beyond the bounds; None while it is within."""
        stats, most = self.version.stats, self._bounds.error_rate
        asked = stats.since_mark + stats.failures
        if stats.failures < FEWEST_FAILURES or stats.failures <= most * asked:
            return None
        return f"{stats.failures} of {asked} answers failed (limit {most:.2%})"

    def slowness(self) -> Slowness | None:
        """Describe a slowdown; None while times are as before, or cannot be compared."""
        if not self._limits or monotonic() < self._again_at:
            return None
        return self._slow_answers() or self._expired()

    def postpone(self) -> None:
        """Back off before ``slowness`` is checked again: comparisons cost time."""
        self._again_at = monotonic() + AGAIN_S * 2**self._compared
        self._compared += 1

    def _slow_answers(self) -> Slowness | None:
        kinds, seconds = self.version.stats.latest()
        limits = self._limit_of[kinds]
        known = ~np.isnan(limits)
        kinds, seconds = kinds[known], seconds[known]
        slow = seconds > limits[known]
        count = int(slow.sum())
        if len(kinds) < FEWEST_ANSWERS or count < FEWEST_SLOW or count <= 0.01 * len(kinds):
            return None
        kind = Counter(kinds[slow].tolist()).most_common(1)[0][0]
        alike, (candidates, history) = seconds[kinds == kind], shape_of(kind)
        return Slowness(
            f"{count} of {len(kinds)} answers took longer than the limit of their kind; with "
            f"about {candidates} candidates and a history of {history}: p99 "
            f"{1e3 * float(np.quantile(alike, 0.99)):.1f} ms (limit "
            f"{1e3 * self._limits[kind]:.1f} ms)",
            _commonest(kinds[slow].tolist()),
        )

    def _expired(self) -> Slowness | None:
        stats = self.version.stats
        share = stats.expired / max(1, stats.since_mark)
        most = max(0.01, self._bounds.p99_ratio * self._expired_before)
        if stats.expired < FEWEST_SLOW or share <= most:
            return None
        return Slowness(
            f"{stats.expired} of {stats.since_mark} answers were not ready before their deadline "
            f"(limit {most:.2%})",
            _commonest(self._limits),
            by_deadlines=True,
        )


def _commonest(kinds: Iterable[int]) -> tuple[Shape, ...]:
    return tuple(shape_of(kind) for kind, _ in Counter(kinds).most_common(SHAPES))


class RollbackMonitor:
    """Checks the newest version a few times a second until its window ends."""

    def __init__(
        self,
        registry: ModelRegistry,
        bounds: Bounds,
        roll_back: Callable[[LoadedModel, str], Awaitable[None]],
        chunk: int = 128,
    ) -> None:
        """``chunk``: the most candidates in one call of the graphs."""
        self._registry, self._bounds, self._roll_back = registry, bounds, roll_back
        self._chunk = chunk
        self._window: RollbackWindow | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._task = keep("model_guard", self._look)

    def begin(self, new: LoadedModel, old: LoadedModel) -> None:
        """Start monitoring ``new``, which has just replaced ``old``."""
        self._window = RollbackWindow(new, old, self._bounds)

    def forget(self, version: LoadedModel) -> None:
        if self._window is not None and self._window.version is version:
            self._window = None

    def close(self) -> None:
        self._task.cancel()
        if self._comparing is not None:
            self._comparing.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            window = self._window
            if window is None:
                continue
            if window.over or window.version is not self._registry.active:
                self._window = None
            elif (violation := window.violation()) is not None:
                await self._end(window, violation)
            elif self._comparing is None and (slowness := window.slowness()) is not None:
                await self._judge(window, slowness)
            del window  # it would keep its version in memory

    async def _end(self, window: RollbackWindow, violation: str) -> None:
        if window is not self._window:
            return
        self._window = None
        bad = window.version
        del window
        try:
            rolling_back = self._roll_back(bad, violation)
            del bad
            await rolling_back
        except Exception:  # no previous version, or the fleet was not notified
            failed("model_guard", "automatic rollback failed")

    async def _judge(self, window: RollbackWindow, slowness: Slowness) -> None:
        """Compare with the previous version if it is in memory; otherwise decide by the numbers."""
        previous = self._registry.previous
        if previous is None or previous.name != window.before:
            if not slowness.by_deadlines:
                await self._end(window, slowness.reason)
            return
        window.postpone()
        self._comparing = begin("model_guard", self._compare(window, previous, slowness))

    async def _compare(self, window: RollbackWindow, old: LoadedModel, slowness: Slowness) -> None:
        try:
            shapes = [(min(count, self._chunk), past) for count, past in slowness.shapes]
            found = await asyncio.to_thread(compare, window.version, old, shapes)
        finally:
            del old
            self._comparing = None
        if found.is_slower(self._bounds.p99_ratio):
            await self._end(window, f"{slowness.reason}; {found}")
        elif window is self._window:
            logger.info(
                "slower than before, but so is the previous version now: not rolled back",
                model_version=window.version.name,
                reason=slowness.reason,
                compared=str(found),
            )
