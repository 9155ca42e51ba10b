"""Compares the speed of two versions by timing them alternately.

Response times also depend on the requests, their rate and other load. Alternating calls expose
both versions to the same load, so this decides before a slow version is rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from service.models.loaded_model import LoadedModel

MOST_PAIRS = 400
FEWEST_PAIRS = 12
TIME_S = 4.0  # at most, after the fewest pairs
LEAST_S = 0.002  # difference for one call to count as slow
SLOW_SHARE = 0.01  # of the new version's calls
CERTAIN = 3.0  # standard deviations between the numbers of slow calls
Shape = tuple[int, int]  # candidates in one call of the graphs, history items
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Seconds by pair: (P,) of the new version and (P,) of the old, each pair of one shape."""

    new: Floats
    old: Floats
    shape: Integers  # (P,)

    def is_slower(self, ratio: float) -> bool:
        """Whether the new version takes ``ratio`` times as long, in the median or in the tail."""
        usual = np.empty_like(self.old)  # (P,) median of the old version for the pair's shape
        for shape in np.unique(self.shape):
            alike = self.shape == shape
            usual[alike] = np.median(self.old[alike])
        if float(np.median(self.new / usual)) > ratio:
            return True
        limit = np.maximum(ratio * usual, usual + LEAST_S)
        slow, also = int((self.new > limit).sum()), int((self.old > limit).sum())
        # If both were equally fast, each slow call would fall on either with probability 1/2.
        more = slow - also > CERTAIN * (slow + also) ** 0.5
        return more and slow > SLOW_SHARE * len(self.new)

    def __str__(self) -> str:
        new, old = (1e3 * float(np.median(seconds)) for seconds in (self.new, self.old))
        return f"median {new:.2f} ms against {old:.2f} ms over {len(self.new)} alternating calls"


def compare(new: LoadedModel, old: LoadedModel, shapes: Sequence[Shape]) -> Comparison:
    """Score random items with both, each first in turn. Blocks for seconds."""
    random, began = np.random.default_rng(0), perf_counter()
    timed: list[tuple[float, float, int]] = []
    for place, shape in cycle(enumerate(shapes)):
        if len(timed) == MOST_PAIRS:
            break
        if len(timed) >= FEWEST_PAIRS and perf_counter() - began > TIME_S:
            break
        if len(timed) % 2:
            before = _score(old, shape, random)
            timed.append((_score(new, shape, random), before, place))
        else:
            timed.append((_score(new, shape, random), _score(old, shape, random), place))
    found = np.array(timed)
    return Comparison(found[:, 0], found[:, 1], found[:, 2].astype(np.int64))


def _score(version: LoadedModel, shape: Shape, random: np.random.Generator) -> float:
    """Time one call in seconds, without reading its rows."""
    candidates, past = shape
    columns, items = version.table.columns, max(1, version.table.count)
    seen = columns.gather(random.integers(0, items, min(past, version.schema.history_length)))
    asked = columns.gather(random.integers(0, items, candidates))
    model, record = version.model, np.zeros(1, version.schema.user_dtype)
    began = perf_counter()
    model.rank(asked, model.history(seen.vector), model.user(record))
    return perf_counter() - began
