"""A metric's series kept at hand: finding one by its labels costs more than counting in it."""

from __future__ import annotations

from typing import Any, TypeVar

from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)


class Series:
    """``series(metric, *labels)`` for ``metric.labels(*labels)``. There are few, and they stay."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def __call__(self, metric: M, *labels: str | int) -> M:
        key = (metric, *labels)
        known: M | None = self._known.get(key)
        if known is None:
            known = self._known[key] = metric.labels(*labels)
        return known
