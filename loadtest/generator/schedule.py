"""Computes send times from a seed, before the first request is sent.

Open loop: the times do not depend on answers, so that a stalled service gets the same load
afterwards (no coordinated omission).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
MAX_REQUESTS = 20_000_000
MAX_SECONDS = 24 * 3600.0


class ScheduleError(ValueError):
    """An invalid schedule; the message names the option."""


@dataclass(frozen=True)
class Arrivals:
    """An arrival process: ``name``, and the one number that some shapes need."""

    name: str = "poisson"
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Arrivals:
        """Parse ``poisson``, ``constant``, ``bursts:SIZE`` or ``ramp:START_RATE``."""
        name, _, value = text.partition(":")
        if name not in SHAPES:
            raise ScheduleError(f"arrivals: {name!r} is none of {', '.join(SHAPES)}")
        needs_value = name in ("bursts", "ramp")
        if needs_value != bool(value):
            wanted = f"{name}:NUMBER" if needs_value else name
            raise ScheduleError(f"arrivals: {text!r} should be written {wanted!r}")
        try:
            return cls(name, float(value) if value else None)
        except ValueError:
            raise ScheduleError(f"arrivals: {value!r} is not a number") from None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}:{self.value:g}"

    def times(self, rate: float, seconds: float, seed: int) -> Times:
        """Draw ascending send times in [0, seconds), ``rate`` a second on average."""
        bounded(rate * seconds, seconds)
        if not rate > 0:
            raise ScheduleError(f"rate: {rate:g} is not positive")
        rng = np.random.default_rng(seed)
        return SHAPES[self.name](rng, rate, seconds, self.value)


def poisson(rng: np.random.Generator, rate: float, seconds: float, _: float | None = None) -> Times:
    """Poisson arrivals: exponential gaps, as of independent users."""
    return unit_poisson(rng, rate * seconds) / rate


def constant(_: np.random.Generator, rate: float, seconds: float, __: float | None = None) -> Times:
    """Constant gaps: the least queueing of all arrivals."""
    times = np.arange(int(np.ceil(rate * seconds))) / rate
    return times[times < seconds]


def bursts(rng: np.random.Generator, rate: float, seconds: float, size: float | None) -> Times:
    """``size`` requests at each instant, the instants Poisson."""
    if size is None or size < 1 or size != int(size):
        raise ScheduleError(f"arrivals: a burst size is a positive integer, not {size}")
    instants = unit_poisson(rng, rate * seconds / size) * size / rate
    return np.repeat(instants, int(size))


def ramp(rng: np.random.Generator, rate: float, seconds: float, start: float | None) -> Times:
    """Poisson arrivals whose rate changes linearly from ``start`` to ``2·rate − start``.

    The average is ``rate``; expected arrivals by time t are Λ(t) = s·t + (r − s)/T·t², inverted
    here for the arrivals of a unit-rate process.
    """
    if start is None or not 0 <= start <= 2 * rate:
        raise ScheduleError(f"arrivals: a ramp starts between 0 and twice the rate, not at {start}")
    unit = unit_poisson(rng, rate * seconds)
    slope = (rate - start) / seconds
    if slope == 0:
        return unit / rate
    return (np.sqrt(start**2 + 4 * slope * unit) - start) / (2 * slope)


SHAPES: dict[str, Callable[[np.random.Generator, float, float, float | None], Times]] = {
    "poisson": poisson,
    "constant": constant,
    "bursts": bursts,
    "ramp": ramp,
}


def unit_poisson(rng: np.random.Generator, expected: float) -> Times:
    """Draw the arrivals of a unit-rate Poisson process on [0, expected)."""
    times = np.empty(0)
    while times.size == 0 or times[-1] < expected:
        more = int(expected + 4 * np.sqrt(expected) + 16)
        start = times[-1] if times.size else 0.0
        times = np.concatenate([times, start + np.cumsum(rng.exponential(size=more))])
    return times[times < expected]


def bounded(requests: float, seconds: float) -> None:
    """ScheduleError for a run beyond the limits on duration and number of requests."""
    if not 0 < seconds <= MAX_SECONDS:
        raise ScheduleError(f"duration: {seconds:g} s is outside (0, {MAX_SECONDS:g}] s")
    if requests > MAX_REQUESTS:
        raise ScheduleError(
            f"rate × duration: {requests:,.0f} requests are more than {MAX_REQUESTS:,}"
        )
