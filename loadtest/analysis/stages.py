"""Where the server says the time went: ``Server-Timing`` joined to the request it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtest.generator.columns import Bucket

if TYPE_CHECKING:
    from loadtest.generator.runner import Run

TOTAL = "total"  # the server's own total, by its customary name


def parse_server_timing(header: str) -> Iterator[tuple[str, float]]:
    """(stage, milliseconds) of each metric that carries a duration (W3C Server Timing)."""
    for metric in header.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "dur" and name:
                yield name, float(value.strip().strip('"'))


def stage_breakdown(run: Run) -> dict[str, Any] | None:
    """Mean milliseconds of each stage over all requests and over the slowest 1%, and the owner.

    ``network`` is what the server did not see: the client's service time less the server's total
    (sockets, kernel queues, the server's event loop before it read the request). ``waiting`` is
    what happened before the request was sent at all. The owner of the slowest 1% is the part with
    the largest mean among them. ``unaccounted_share`` is how far the server's stages are from its
    own total, in the mean; None when it sends no total.
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
