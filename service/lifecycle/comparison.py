"""Times two versions in turns over one stretch, so that other work slows both alike.

What a version's answers take also depends on what is asked, how often, and what else runs on the
machine. Before a version is taken back for being slow it is held against the one before it, here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from service.models.loaded_model import LoadedModel

PAIRS = 400  # at most
TIME_S = 4.0  # at most, once there are the fewest pairs
FEWEST_PAIRS = 12
LEAST_S = 0.002  # of difference for one call to be slow
SLOW_SHARE = 0.01  # of the new one's calls
CERTAIN = 3.0  # standard deviations by which the new one must have more slow calls than the old
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
        """Whether the new one takes ``ratio`` times as long and more, as a rule or in its tail."""
        usual = np.empty_like(self.old)  # (P,) of the old one, for this shape
        for shape in np.unique(self.shape):
            alike = self.shape == shape
            usual[alike] = np.median(self.old[alike])
        if float(np.median(self.new / usual)) > ratio:
            return True
        limit = np.maximum(ratio * usual, usual + LEAST_S)
        slow, also = int((self.new > limit).sum()), int((self.old > limit).sum())
        # Were both alike, a slow call would be either's by the toss of a coin.
        more = slow - also > CERTAIN * (slow + also) ** 0.5
        return more and slow > SLOW_SHARE * len(self.new)

    def __str__(self) -> str:
        new, old = (1e3 * float(np.median(seconds)) for seconds in (self.new, self.old))
        return f"median {new:.2f} ms against {old:.2f} ms over {len(self.new)} calls in turns"


def compare(new: LoadedModel, old: LoadedModel, shapes: Sequence[Shape]) -> Comparison:
    """Score random items with both, alternating which one is first. Blocks for seconds."""
    random, began = np.random.default_rng(0), perf_counter()
    timed: list[tuple[float, float, int]] = []
    for place, shape in cycle(enumerate(shapes)):
        if len(timed) == PAIRS:
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
    """Seconds, the reading of the rows not counted."""
    candidates, past = shape
    columns, items = version.table.columns, max(1, version.table.count)
    seen = columns.gather(random.integers(0, items, min(past, version.schema.history_length)))
    asked = columns.gather(random.integers(0, items, candidates))
    began = perf_counter()
    version.model.rank(asked, version.model.history(seen.vector))
    return perf_counter() - began
