"""Watches a new version through its first minutes, and says when it must be taken back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import monotonic

import numpy as np

from service.lifecycle.comparison import Comparison, Shape, compare
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry
from service.observability.background import begin, failed, keep
from service.observability.logs import logger
from service.observability.version_stats import KINDS, shape_of

LOOK_EVERY_S = 0.25
FEWEST_FAILURES = 5  # one bad request is no reason
FEWEST_ANSWERS = 459  # that show a p99 with 99% confidence (none over it)
FEWEST_ALIKE = 100  # of one kind, for its p99 to be compared with
FEWEST_SLOW = 10
LEAST_MS = 2.0  # of difference: below it a ratio of two p99 is noise
SHAPES = 4  # that two versions are compared on
AGAIN_S = 10.0  # after a comparison that showed nothing; then twice as long each time


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a new version may do worse."""

    window_s: float  # 0: it is not watched
    error_rate: float
    p99_ratio: float  # to the p99 of the version before; 0: not looked at


@dataclass(frozen=True, slots=True)
class Slowness:
    """What looks slow: it may be the version, or what is asked of it."""

    reason: str
    shapes: tuple[Shape, ...]  # of the requests that were
    by_deadlines: bool = False  # which waiting may be to blame for


class RollbackWindow:
    """One new version beside the one it replaced, from the switch on.

    A p99 is compared with that of requests of the same kind alone, so that longer lists or
    histories than before are no slowness.
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
        """Of its failures; None while they are within bounds."""
        stats, most = self.version.stats, self._bounds.error_rate
        asked = stats.since_mark + stats.failures
        if stats.failures < FEWEST_FAILURES or stats.failures <= most * asked:
            return None
        return f"{stats.failures} of {asked} answers failed (limit {most:.2%})"

    def slowness(self) -> Slowness | None:
        """None while its times are like those of the version before, or cannot be compared."""
        if not self._limits or monotonic() < self._again_at:
            return None
        return self._slow_answers() or self._expired()

    def postpone(self) -> None:
        """``slowness`` is looked at again later, and later each time: a comparison costs time."""
        self._again_at = monotonic() + AGAIN_S * 2**self._compared
        self._compared += 1

    def is_slower(self, comparison: Comparison) -> bool:
        """Whether a comparison confirms it."""
        return comparison.is_slower(self._bounds.p99_ratio)

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
            f"{count} of {len(kinds)} answers took longer than the p99 of their kind may be; of "
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
    """Looks at the newest version a few times a second while its window lasts."""

    def __init__(
        self,
        registry: ModelRegistry,
        bounds: Bounds,
        take_back: Callable[[LoadedModel, str], Awaitable[None]],
        chunk: int = 128,
    ) -> None:
        """``chunk``: the most candidates in one call of the graphs."""
        self._registry, self._bounds, self._take_back = registry, bounds, take_back
        self._chunk = chunk
        self._watch: RollbackWindow | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._task = keep("model_guard", self._look)

    def begin(self, new: LoadedModel, old: LoadedModel) -> None:
        """``new`` has just taken the place of ``old``."""
        self._watch = RollbackWindow(new, old, self._bounds)

    def forget(self, version: LoadedModel) -> None:
        if self._watch is not None and self._watch.version is version:
            self._watch = None

    def close(self) -> None:
        self._task.cancel()
        if self._comparing is not None:
            self._comparing.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            watch = self._watch
            if watch is None:
                continue
            if watch.over or watch.version is not self._registry.active:
                self._watch = None
            elif (violation := watch.violation()) is not None:
                await self._end(watch, violation)
            elif self._comparing is None and (slowness := watch.slowness()) is not None:
                await self._judge(watch, slowness)
            del watch  # so that its version can be freed

    async def _end(self, watch: RollbackWindow, violation: str) -> None:
        if watch is not self._watch:
            return
        self._watch = None
        bad = watch.version
        del watch
        try:
            taking_back = self._take_back(bad, violation)
            del bad
            await taking_back
        except Exception:  # there is nothing to go back to, or the fleet cannot be told
            failed("model_guard", "automatic rollback failed")

    async def _judge(self, watch: RollbackWindow, slowness: Slowness) -> None:
        """Beside the version before, if that is in memory; else by the numbers alone."""
        previous = self._registry.previous
        if previous is None or previous.name != watch.before:
            if not slowness.by_deadlines:
                await self._end(watch, slowness.reason)
            return
        watch.postpone()
        self._comparing = begin("model_guard", self._compare(watch, previous, slowness))

    async def _compare(self, watch: RollbackWindow, old: LoadedModel, slowness: Slowness) -> None:
        try:
            shapes = [(min(count, self._chunk), past) for count, past in slowness.shapes]
            found = await asyncio.to_thread(compare, watch.version, old, shapes)
        finally:
            del old
            self._comparing = None
        if watch.is_slower(found):
            await self._end(watch, f"{slowness.reason}; {found}")
        elif watch is self._watch:
            logger.info(
                "slower than the version before was, which is as slow now: not taken back",
                model_version=watch.version.name,
                reason=slowness.reason,
                compared=str(found),
            )
