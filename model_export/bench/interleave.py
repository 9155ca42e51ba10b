"""Times variants interleaved in one process, so that disturbances affect all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

Run = Callable[[], object]

LEAST = 3  # readings per variant, unless one takes the whole time
ROUNDS = 200  # at most


@dataclass(frozen=True, slots=True)
class Reading:
    """A median of several runs, in milliseconds."""

    ms: float
    repeats: int


def medians(variants: Mapping[str, Run], seconds: float) -> dict[str, Reading]:
    """Return each variant's median, interleaved after one warm-up run.

    The order is shuffled every round, so that a variant does not always follow the same other one
    in the caches. A variant stops after ``seconds`` and LEAST readings; one whose single run takes
    longer is read once.
    """
    readings: dict[str, list[float]] = {name: [] for name in variants}
    least = {n: 1 if milliseconds(run) > 1e3 * seconds else LEAST for n, run in variants.items()}
    order, random = list(variants.items()), Random(0)
    for _ in range(ROUNDS):
        random.shuffle(order)
        for name, run in order:
            taken = readings[name]
            if len(taken) < least[name] or sum(taken) < 1e3 * seconds:
                taken.append(milliseconds(run))
    return {name: Reading(statistics.median(ms), len(ms)) for name, ms in readings.items()}


def milliseconds(run: Run) -> float:
    """Duration of one run."""
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)
