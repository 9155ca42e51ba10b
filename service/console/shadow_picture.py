"""Draws the shadow's scores against the answers', and compares their time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.lifecycle.shadow import Shadow
from service.models.loaded_model import LoadedModel

SIZE = 300  # of the square, in the units of the picture
TICKS = 4


class Tick(NamedTuple):
    place: float  # along the axis
    text: str


class Picture(NamedTuple):
    """Of (N, 2) probabilities."""

    points: str  # an SVG path of dots
    ticks: list[Tick]
    candidates: int
    rank_correlation: float | None  # Spearman's ρ over all points
    shadow_ms: float | None  # median time of the graphs, by request
    active_ms: float | None


def picture(shadow: Shadow, active: LoadedModel | None) -> Picture | None:
    """Draw the latest samples; None without any."""
    samples = shadow.samples
    if samples is None or not len(samples.pairs()):
        return None
    pairs = samples.pairs()
    most = _round_up(float(pairs.max()))
    places = np.round(SIZE * pairs / most, 1)
    dots = "".join(f"M{x:g} {SIZE - y:g}h0" for x, y in np.unique(places, axis=0).tolist())
    steps = np.linspace(0, most, TICKS + 1)
    active_s = active.stats.latest()[1] if active is not None else np.empty(0)
    return Picture(
        dots,
        [Tick(round(SIZE * step / most, 1), f"{step:g}") for step in steps.tolist()],
        len(pairs),
        spearman(pairs),
        _median_ms(samples.seconds()),
        _median_ms(active_s.astype(np.float64)),
    )


def spearman(pairs: NDArray[np.float64]) -> float | None:
    """Spearman's ρ of (N, 2) values, ties given their mean rank; None where it is undefined."""
    ranks = np.stack([_ranks(column) for column in pairs.T])
    ranks -= ranks.mean(1, keepdims=True)
    scale = float(np.sqrt((ranks**2).sum(1).prod()))
    return float((ranks[0] * ranks[1]).sum()) / scale if scale else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    mean: NDArray[np.float64] = (ends - (count - 1) / 2)[place]
    return mean


def _round_up(most: float) -> float:
    """The end of the axes: one that divides well."""
    ends = (0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1.0)
    return next((end for end in ends if most <= end), 1.0)


def _median_ms(seconds: NDArray[np.float64]) -> float | None:
    return 1e3 * float(np.median(seconds)) if len(seconds) else None
