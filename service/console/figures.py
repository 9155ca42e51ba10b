"""Computes what the page Now shows, from the rows of every process's last seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.observability.recent_traffic import (
    BUCKET,
    HOUR_S,
    OUTCOMES,
    PLACE,
    PROBLEM,
    Floats,
    RecentTraffic,
    quantiles,
)

MINUTES = (1, 5, 60)
SMOOTH_S = 10  # over which a point of the latency graph is taken
POINTS = 360  # of a graph, at most
FRESH_S = 5  # a process without a row for longer is gone
ENDED = slice(PLACE[OUTCOMES[0]], PLACE[OUTCOMES[-1]] + 1)

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one process: (S, COLUMNS), and which of them it has written, (S,)."""

    number: int
    rows: Floats
    there: NDArray[np.bool_]


def parts(recent: RecentTraffic, last: int, seconds: int = HOUR_S) -> list[Part]:
    """Read the rings of all processes, up to the second ``last``."""
    return [Part(number, *ring.read(last, seconds)) for number, ring in recent.rings()]


def summed(found: list[Part]) -> Part:
    """Sum the rows of all processes."""
    rows = np.sum([part.rows for part in found], axis=0)
    return Part(-1, rows, np.any([part.there for part in found], axis=0))


def window(part: Part, seconds: int) -> dict[str, Any]:
    """Describe the traffic of the last ``seconds``, or of those that have rows."""
    total = part.rows[-seconds:].sum(0, dtype=np.float64)
    counts = total[BUCKET][None]
    errors = {slug: int(total[place]) for slug, place in PROBLEM.items() if total[place] > 0}
    covered = max(1, int(part.there[-seconds:].sum()))
    rates = {name: float(total[PLACE[name]]) / covered for name in (*OUTCOMES, "elsewhere")}
    return {
        "rate": float(total[ENDED].sum()) / covered,
        **rates,
        "p50": _ms(float(quantiles(0.5, counts)[0])),
        "p99": _ms(float(quantiles(0.99, counts)[0])),
        "errors": dict(sorted(errors.items(), key=lambda pair: -pair[1])),
    }


def process(part: Part) -> dict[str, Any]:
    """Describe one process over the last 10 seconds, and as it is now."""
    now = part.rows[-1] if part.there[-1] else part.rows[np.flatnonzero(part.there)[-1]]
    recent = part.rows[-SMOOTH_S:].astype(np.float64)
    of_threads = max(1.0, float(now[PLACE["threads"]])) * max(1, int(part.there[-SMOOTH_S:].sum()))
    shown = window(part, SMOOTH_S)
    return {
        "number": part.number,
        **{name: shown[name] for name in ("rate", "p50", "p99", "refused", "failed")},
        "engine": min(1.0, float(recent[:, PLACE["busy"]].sum()) / of_threads),
        "queue": int(now[PLACE["queue"]]),
        "reachable": bool(now[PLACE["reachable"]]),
        "ready": bool(now[PLACE["ready"]]),
        "memory": float(now[PLACE["memory"]]),
    }


def processes(found: list[Part]) -> list[dict[str, Any]]:
    """Describe each process that has written a row lately."""
    return [process(part) for part in found if part.there[-FRESH_S:].any()]


def whole(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe all processes together, as they are now."""
    return {
        "engine": sum(one["engine"] for one in each) / max(1, len(each)),
        "queue": sum(one["queue"] for one in each),
        "reachable": all(one["reachable"] for one in each),
        "ready": all(one["ready"] for one in each),
        "memory": sum(one["memory"] for one in each),
    }


def rows_of(minutes: int) -> int:
    """How many seconds the points of so many minutes are made of."""
    return min(HOUR_S, 60 * minutes + SMOOTH_S)


def series(part: Part, last: int, minutes: int) -> dict[str, list[float | None]]:
    """Make the points of the graphs over the last ``minutes``, each list (P,) with P ≤ POINTS.

    None where nothing was counted.
    """
    seconds = 60 * minutes
    step = max(1, -(-seconds // POINTS))
    width, rows = max(step, SMOOTH_S), part.rows
    sums = np.cumsum(np.concatenate([np.zeros((1, rows.shape[1])), rows]), 0, dtype=np.float64)
    ends = np.arange(len(rows), len(rows) - seconds, -step)[::-1]
    counted = sums[ends] - sums[np.maximum(ends - step, 0)]  # (P, COLUMNS)
    smooth = sums[ends] - sums[np.maximum(ends - width, 0)]
    covered = np.concatenate([[0], np.cumsum(part.there)])
    seen = covered[ends] - covered[np.maximum(ends - step, 0)]  # (P,) seconds with a row
    rates = np.where(seen[:, None] > 0, counted / np.maximum(seen, 1)[:, None], np.nan)
    found = {name: rates[:, PLACE[name]] for name in OUTCOMES}
    found |= {"p50": 1e3 * quantiles(0.5, smooth[:, BUCKET])}
    found |= {"p99": 1e3 * quantiles(0.99, smooth[:, BUCKET])}
    points = {name: _listed(values) for name, values in found.items()}
    return {"t": (last - len(rows) + ends).tolist(), **points}


def _ms(seconds: float) -> float | None:
    return None if np.isnan(seconds) else 1e3 * seconds


def _listed(values: Matrix) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 3) for value in values.tolist()]
