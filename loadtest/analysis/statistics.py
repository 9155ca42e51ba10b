"""Computes percentiles and their confidence intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.verdict import needed

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
RESAMPLES = 1000
GRID = 512
Samples = NDArray[np.float64]


def percentile(samples: Samples, q: float) -> float:
    """Return the smallest sample with at least a share q at or below it; NaN of none.

    An order statistic, not interpolated.
    """
    if not samples.size:
        return float("nan")
    rank = max(0, int(np.ceil(q * samples.size - 1e-9)) - 1)
    return float(np.partition(samples, rank)[rank])


def enough_for(q: float) -> int:
    """Return the fewest samples for which a percentile is reported."""
    return needed(0, q) if q > 0.99 else 1


def percentiles(samples: Samples) -> dict[str, float | None]:
    """Compute QUANTILES, mean and max in milliseconds; None for too few samples."""
    known = np.sort(samples[~np.isnan(samples)])
    summary: dict[str, float | None] = {
        name: None if known.size < enough_for(q) else 1e3 * percentile(known, q)
        for name, q in QUANTILES.items()
    }
    summary["mean"] = 1e3 * float(known.mean()) if known.size else None
    summary["max"] = 1e3 * float(known[-1]) if known.size else None
    return summary


def block_bootstrap(
    samples: Samples, q: float, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Compute a block-bootstrap interval for the q-quantile of autocorrelated samples.

    Non-overlapping blocks of about √n samples in time order are drawn with replacement (Künsch
    1989, Carlstein 1986): in a queue slow answers come in runs, and resampling single ones would
    give too narrow an interval. Each block is counted against a grid of order statistics around
    the quantile, so that a resample is one row of a matrix product. None below 20 blocks.
    """
    known = samples[~np.isnan(samples)]
    length = int(np.ceil(np.sqrt(known.size)))
    blocks = known.size // length if length else 0
    if blocks < 20:
        return None
    kept = known[: blocks * length]
    grid = _grid(np.sort(kept), q, blocks)
    place = np.searchsorted(grid, kept, side="left").reshape(blocks, length)
    counts = np.zeros((blocks, grid.size + 1))
    np.add.at(counts, (np.arange(blocks)[:, None], place), 1)
    at_or_below = np.cumsum(counts, axis=1)[:, :-1]  # (blocks, grid)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)  # (resamples, blocks)
    reached = drawn @ at_or_below >= q * kept.size - 1e-6
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), grid.size - 1)
    low, high = np.quantile(grid[first], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _grid(ordered: Samples, q: float, blocks: int) -> Samples:
    """Pick order statistics, dense within eight standard errors (of n = blocks) of the quantile."""
    n = ordered.size
    spread = 8 * np.sqrt(q * (1 - q) / blocks)
    low, high = int(n * max(0.0, q - spread)), int(n * min(1.0, q + spread))
    ranks = np.linspace(low, max(low, min(high, n - 1)), GRID)
    around = np.linspace(0, n - 1, 64)
    chosen = np.unique(np.concatenate([ranks, around]).astype(np.int64))
    return np.unique(ordered[chosen])
