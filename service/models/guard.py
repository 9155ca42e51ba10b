"""Watches a new version through its first minutes, and says when it must be taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import numpy as np

from service.observability.background import failed, keep
from service.versions import Version, Versions

LOOK_EVERY_S = 0.25
FEWEST_FAILURES = 5  # one bad request is no reason
FEWEST_ANSWERS = 459  # that show a p99 with 99% confidence (none over it)
FEWEST_SLOW = 10
LEAST_MS = 2.0  # of difference: below it a ratio of two p99 is noise


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a new version may do worse."""

    window_s: float  # 0: it is not watched
    error_rate: float
    p99_ratio: float  # to the p99 of the version before; 0: not looked at


class Watch:
    """One new version beside the one it replaced, from the switch on."""

    def __init__(self, new: Version, old: Version, bounds: Bounds) -> None:
        self.version = new
        self._bounds, self._began = bounds, monotonic()
        before = old.tally.latest()
        usual = float(np.quantile(before, 0.99)) if len(before) >= FEWEST_ANSWERS else None
        self._limit = None
        if usual is not None and bounds.p99_ratio:
            self._limit = max(bounds.p99_ratio * usual, usual + LEAST_MS / 1e3)
        new.tally.mark()

    @property
    def over(self) -> bool:
        return monotonic() - self._began > self._bounds.window_s

    def complaint(self) -> str | None:
        """Why it must go; None while it is as good as the one before."""
        return self._errors() or self._slowness()

    def _errors(self) -> str | None:
        tally, most = self.version.tally, self._bounds.error_rate
        asked = tally.since_mark + tally.failures
        if tally.failures < FEWEST_FAILURES or tally.failures <= most * asked:
            return None
        return f"{tally.failures} of {asked} answers failed (limit {most:.2%})"

    def _slowness(self) -> str | None:
        if self._limit is None or self.version.tally.since_mark < FEWEST_ANSWERS:
            return None
        seconds = self.version.tally.latest()
        slow = int((seconds > self._limit).sum())
        if slow < FEWEST_SLOW or slow <= 0.01 * len(seconds):
            return None
        return (
            f"p99 {1e3 * float(np.quantile(seconds, 0.99)):.1f} ms over {len(seconds)} answers "
            f"(limit {1e3 * self._limit:.1f} ms)"
        )


class Guard:
    """Looks at the newest version a few times a second while its window lasts."""

    def __init__(
        self,
        versions: Versions,
        bounds: Bounds,
        take_back: Callable[[Version, str], Awaitable[None]],
    ) -> None:
        self._versions, self._bounds, self._take_back = versions, bounds, take_back
        self._watch: Watch | None = None
        self._task = keep("model_guard", self._look)

    def begin(self, new: Version, old: Version) -> None:
        """``new`` has just taken the place of ``old``."""
        self._watch = Watch(new, old, self._bounds)

    def forget(self, version: Version) -> None:
        if self._watch is not None and self._watch.version is version:
            self._watch = None

    def close(self) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._watch is None:
                continue
            complaint = self._watch.complaint()
            bad = self._watch.version
            if self._watch.over or bad is not self._versions.active:
                self._watch = None
            elif complaint is not None:
                self._watch = None
                try:
                    taking_back = self._take_back(bad, complaint)
                    del bad
                    await taking_back
                except Exception:  # there is nothing to go back to, or nobody to tell
                    failed("model_guard", "automatic rollback failed")
                continue
            del bad
