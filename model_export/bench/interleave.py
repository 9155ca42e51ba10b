"""Timing in turns: one machine, one run, so that what disturbs one variant disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

Run = Callable[[], object]

LEAST = 3  # readings of each variant, unless a single one takes its whole time
ROUNDS = 200  # at most, however quick


@dataclass(frozen=True, slots=True)
class Reading:
    """The median of so many runs, in milliseconds."""

    ms: float
    repeats: int


def medians(variants: Mapping[str, Run], seconds: float) -> dict[str, Reading]:
    """Each variant's median, run in turns after one run to warm up.

    Every round has its own order, so that none is always judged by what the same other one left
    in the caches. One that has had ``seconds`` of its own and LEAST readings drops out; one that
    takes longer than that for a single run is read once.
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
    """Of one run."""
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)
