"""Breaks latency down into server stages, from each answer's ``Server-Timing``."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtest.generator.columns import Bucket
from loadtest.generator.runner import Run

TOTAL = "total"  # name of the server's total


def stage_breakdown(run: Run) -> dict[str, Any] | None:
    """Compute mean milliseconds of each stage, over all requests and over the slowest 1%.

    ``network``: the client's service time less the server's total (sockets, kernel queues, the
    server's event loop before it reads). ``waiting``: before the send. ``owner_of_slowest``: the
    part with the largest mean among the slowest 1%. ``unaccounted_share``: relative difference
    of the summed stages from the server's total, in the mean; None without a total.
    """
    rows = run.measured
    if not run.stage_names:
        return None
    parts = run.columns.stages[rows, : len(run.stage_names)].astype(np.float64)
    usable = (run.columns.bucket[rows] == Bucket.OK) & ~np.isnan(parts).all(axis=1)
    if not usable.any():
        return None
    parts = np.nan_to_num(parts[usable])
    names = [name for name in run.stage_names if name != TOTAL]
    stage = parts[:, [run.stage_names.index(name) for name in names]]  # (n, stages)
    summed = stage.sum(axis=1)
    total = parts[:, run.stage_names.index(TOTAL)] if TOTAL in run.stage_names else summed
    response, service = 1e3 * run.response()[usable], 1e3 * run.service()[usable]
    table = np.column_stack([response - service, np.maximum(service - total, 0), stage])
    columns = ["waiting", "network", *names]
    slowest = np.argsort(-response)[: max(1, round(response.size / 100))]
    means = {"all": table.mean(axis=0), "slowest": table[slowest].mean(axis=0)}
    return {
        "requests": int(response.size),
        "mean_ms": dict(zip(columns, means["all"].tolist(), strict=True)),
        "slowest_1_percent_ms": dict(zip(columns, means["slowest"].tolist(), strict=True)),
        "slowest_1_percent_from_ms": float(response[slowest].min()),
        "owner_of_slowest": columns[int(means["slowest"].argmax())],
        "server_total_ms": float(total.mean()),
        "unaccounted_share": (
            abs(float(total.mean() - summed.mean())) / float(total.mean())
            if TOTAL in run.stage_names and total.mean() > 0
            else None
        ),
    }
