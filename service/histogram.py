"""``prometheus_client.Histogram`` that finds its bucket by bisection.

The library's looks at one bound after the other, and a request is observed in a dozen histograms of
twenty-four: half of what counting it costs.
"""

from __future__ import annotations

from bisect import bisect_left

import prometheus_client


class Histogram(prometheus_client.Histogram):
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """``exemplar``: see the library."""
        if exemplar is not None:
            super().observe(amount, exemplar)
            return
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)
