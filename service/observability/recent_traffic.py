"""Keeps figures of the last hour, one row per second and process, for the console's graphs.

Each process writes its own ring, once a second; a process with siblings maps it from the service's
run folder, so that any worker reads the rings of all without a message. Rows hold what was counted
in their second, not totals: a worker that starts again continues the ring of its predecessor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import FRAMEWORK, HTTP_ERROR, tree
from service.observability.background import failed, keep
from service.observability.metrics import LATENCY, Metrics
from service.observability.role_marks import RoleMarks

HOUR_S = 3600
MOST_MISSED_S = 60  # a longer silence of the process stays a gap
ROWS = HOUR_S + 60  # an hour, and seconds that are being written
OUTCOMES = ("answered", "refused", "invalid", "failed")  # 2xx, 429, other 4xx, 5xx
OTHER = "other"
NAMED = (*(error.slug for error in tree()), *FRAMEWORK.values(), HTTP_ERROR)
PROBLEMS = (*dict.fromkeys(NAMED), OTHER)
BUCKETS = tuple(f"le_{place}" for place in range(len(LATENCY) + 1))
GAUGES = ("queue", "threads", "reachable", "ready", "memory")
COUNTED = (*OUTCOMES, "elsewhere", *BUCKETS, *PROBLEMS, "busy")
COLUMNS = (*COUNTED, *GAUGES)
PLACE = {name: place for place, name in enumerate(COLUMNS)}
PROBLEM = {slug: PLACE[slug] for slug in PROBLEMS}
BUCKET = slice(PLACE[BUCKETS[0]], PLACE[BUCKETS[-1]] + 1)
GAUGE = slice(PLACE[GAUGES[0]], None)

Floats = NDArray[np.float32]
Seconds = NDArray[np.int64]


class Ring:
    """Rows of one process, (ROWS, COLUMNS), each stamped with its second."""

    def __init__(self, file: Path | None = None, *, writes: bool = True) -> None:
        size = ROWS * (8 + 4 * len(COLUMNS))
        memory: Any = bytearray(size)
        if file is not None:
            if writes and (not file.exists() or file.stat().st_size != size):
                file.write_bytes(memory)
            memory = np.memmap(file, np.uint8, "r+" if writes else "r", shape=(size,))
        self._stamps: Seconds = np.frombuffer(memory, np.int64, ROWS)
        self._rows: Floats = np.frombuffer(
            memory, np.float32, ROWS * len(COLUMNS), 8 * ROWS
        ).reshape(ROWS, len(COLUMNS))

    def write(self, second: int, row: Floats) -> None:
        place = second % ROWS
        self._stamps[place] = 0  # a reader skips a row that is half written
        self._rows[place] = row
        self._stamps[place] = second

    def read(self, last: int, seconds: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Rows of the ``seconds`` up to ``last``, zeros where there is none: (S, COLUMNS), (S,)."""
        wanted = np.arange(last - seconds + 1, last + 1)
        places = wanted % ROWS
        there = self._stamps[places] == wanted
        return np.where(there[:, None], self._rows[places], np.float32(0)), there


class Totals:
    """Reads the counters of this process as one vector."""

    def __init__(self, metrics: Metrics, scoring: frozenset[str]) -> None:
        self._metrics, self._scoring = metrics, scoring
        self._places: dict[tuple[str, ...], int] = {}

    def read(self) -> NDArray[np.float64]:
        """(COUNTED,) since the start, without ``busy``."""
        found = np.zeros(len(COUNTED))
        for labels, counter in _series(self._metrics.requests):
            if (place := self._places.get(labels)) is None:
                place = self._places[labels] = self._place(*labels)
            found[place] += counter._value._value
        for (slug,), counter in _series(self._metrics.problems):
            found[PROBLEM.get(slug, PROBLEM[OTHER])] += counter._value._value
        for (route, outcome), histogram in _series(self._metrics.request_seconds):
            if outcome == "ok" and route in self._scoring:
                found[BUCKET] += [bucket._value for bucket in histogram._buckets]
        return found

    def _place(self, route: str, status: str) -> int:
        if route not in self._scoring:
            return PLACE["elsewhere"]
        kind = 3 if status >= "500" else 1 if status == "429" else 2 if status >= "400" else 0
        return PLACE[OUTCOMES[kind]]


def _series(metric: Any) -> list[tuple[tuple[str, ...], Any]]:
    return list(metric._metrics.items())


class RecentTraffic:
    """This process's ring, and those of its siblings. ``async with`` writes it once a second."""

    def __init__(
        self,
        totals: Totals,
        busy: Callable[[], float],
        gauges: Callable[[], Sequence[float]],
        roles: Callable[[], Mapping[str, str | None]],
        folder: Path | None = None,
        number: int = 0,
        workers: int = 1,
    ) -> None:
        """``busy``: engine seconds since the start; ``gauges``: as GAUGES; ``roles``: by role, what
        has it, for the marks; ``folder``: of the service's workers, if there are several."""
        self._totals, self._busy, self._gauges, self._roles = totals, busy, gauges, roles
        self.number = number
        self._files = {} if folder is None else {n: _file(folder, n) for n in range(workers)}
        self.ring = Ring(self._files.get(number))
        self._others: dict[int, Ring] = {}
        self._before, self._written = self._now(), int(time()) - 1
        shared = None if folder is None else folder / "marks.json"
        self.marks = RoleMarks(shared, writes=number == 0)
        self.on_second: list[Callable[[int], None]] = []

    async def __aenter__(self) -> RecentTraffic:
        self._task = keep("recent", self._keep_written)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    @property
    def last(self) -> int:
        """The last second that every process has written."""
        return int(time()) - 1 - bool(self._files)

    def rings(self) -> Iterator[tuple[int, Ring]]:
        """Each process's number and ring."""
        yield self.number, self.ring
        for number, file in self._files.items():
            if number == self.number:
                continue
            if number not in self._others and file.exists():
                self._others[number] = Ring(file, writes=False)
            if number in self._others:
                yield number, self._others[number]

    def write(self, second: int) -> None:
        """Write the row of the second that has just ended.

        What was counted since the last row is spread evenly over the seconds missed meanwhile.
        """
        if second <= self._written:  # the clock was set back, or the timer early
            return
        missed = second - self._written
        spread = missed if missed <= MOST_MISSED_S else 1
        now = self._now()
        row = np.empty(len(COLUMNS), np.float32)
        row[: len(COUNTED)] = np.maximum(now - self._before, 0) / spread
        row[GAUGE] = self._gauges()
        self._before, self._written = now, second
        for each in range(second - spread + 1, second + 1):
            self.ring.write(each, row)
        self.marks.look(self._roles(), time())
        for called in self.on_second:
            called(self.last)

    def _now(self) -> NDArray[np.float64]:
        now = self._totals.read()
        now[PLACE["busy"]] = self._busy()
        return now

    async def _keep_written(self) -> None:
        while True:
            now = time()
            await asyncio.sleep(int(now) + 1 - now)
            try:
                self.write(int(time()) - 1)
            except OSError:
                failed("recent", "cannot write the figures of a second")


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.recent"


def quantiles(q: float, counts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Estimate a quantile of latencies in seconds, (N,), from (N, BUCKETS) counts; NaN of none.

    Linear within its bucket, as Prometheus's ``histogram_quantile``; beyond the last bound, that
    bound.
    """
    total = np.cumsum(counts, 1, dtype=np.float64)
    rank = q * total[:, -1]
    place = (total < rank[:, None]).sum(1)  # (N,) first bucket that reaches the rank
    bounds = np.array([0.0, *LATENCY, LATENCY[-1]])
    rows = np.arange(len(total))
    before = np.where(place > 0, total[rows, place - 1], 0.0)
    width = np.maximum(total[rows, place] - before, 1e-12)
    estimate = bounds[place] + (rank - before) / width * (bounds[place + 1] - bounds[place])
    return np.where(total[:, -1] > 0, estimate, np.nan)
