"""How the order of users' candidates changes between two versions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from batch.grouping.partition import bucket_of, mixed
from feature_store.contract import Ids
from model_export.bundle.vectors import Floats

TOP = 10
SAMPLED = 4_000_000  # candidates whose ranks are compared, about: whole users or lists


@dataclass(slots=True)
class Ranks:
    """Collects scores of a sample of groups (users or lists), ``of`` being one in so many."""

    of: int = 1
    _parts: list[tuple[Ids, Floats, Floats]] = field(default_factory=list)

    def add(self, group: Ids, a: Floats, b: Floats) -> None:
        """Add scores (N,) of candidates of these groups (N,)."""
        chosen = bucket_of(mixed(group), self.of) == 0
        self._parts.append((group[chosen], a[chosen], b[chosen]))

    def facts(self) -> dict[str, float | int | None]:
        """Lists compared; shares and means over those of two candidates or more."""
        if not self._parts:
            return {"lists": 0}
        group, a, b = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(group, kind="stable")
        group, a, b = group[order], a[order], b[order]
        edges = np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(group))
        overlap, moved, first = [], [], []
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if end - start < 2:
                continue
            one, two = _order(a[start:end]), _order(b[start:end])
            k = min(TOP, end - start)
            overlap.append(len(np.intersect1d(one[:k], two[:k])) / k)
            first.append(one[0] != two[0])
            moved.append(np.abs(np.argsort(one) - np.argsort(two)).mean())
        if not overlap:
            return {"lists": 0}
        return {
            "lists": len(overlap),
            "one_in": self.of,
            f"top_{TOP}_kept": float(np.mean(overlap)),
            "first_differs": float(np.mean(first)),
            "mean_places_moved": float(np.mean(moved)),
        }


def _order(scores: Floats) -> Ids:
    order: Ids = np.argsort(-scores, kind="stable")
    return order
