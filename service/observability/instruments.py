"""``prometheus_client``'s counters and histograms for one thread, the event loop's: no locks.

A request is counted by a dozen counters and a dozen histograms of twenty-four buckets; the library
takes a lock for each number and looks at one bucket's bound after the other.
"""

from __future__ import annotations

from bisect import bisect_left

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
        """Of one without labels, or with all of them."""
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
