"""``prometheus_client``'s counters and histograms for one thread, the event loop's: no locks.

A request updates about 25 metrics. The library takes a lock for each number, searches a
histogram's buckets one after the other, and looks a series up by its labels under another lock.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import prometheus_client


class Counter(prometheus_client.Counter):
    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """``exemplar``: see the library."""
        if exemplar is not None or amount < 0:
            super().inc(amount, exemplar)
            return
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        self._value._value += amount

    @property
    def value(self) -> float:
        """Of a counter without labels, or with all of them."""
        return float(self._value.get())


class Histogram(prometheus_client.Histogram):
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """``exemplar``: see the library."""
        if exemplar is not None:
            super().observe(amount, exemplar)
            return
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        self._sum._value += amount
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1


class LabelCache(dict[tuple[Any, ...], Any]):
    """``cache[metric, *labels]``: ``metric.labels(*labels)``, looked up once. Never evicts."""

    def __missing__(self, key: tuple[Any, ...]) -> Any:
        metric, *labels = key
        series = self[key] = metric.labels(*labels)
        return series
