"""Builds the charts of reports from rows and results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.statistics import percentile
from loadtest.generator.columns import Bucket
from loadtest.report.svg import Chart, Line, Scale

if TYPE_CHECKING:
    from loadtest.generator.runner import Run

Floats = NDArray[np.float64]
NINES = [(0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")]


def distribution(run: Run, verdicts: Sequence[dict[str, Any]]) -> str:
    """Chart latency by percentile; both axes logarithmic, so that each nine is equally wide."""
    known = ~np.isnan(run.response())
    corrected = np.sort(1e3 * run.response()[known])
    uncorrected = np.sort(1e3 * run.service()[known & ~np.isnan(run.service())])
    if not corrected.size:
        return "<p>No answers.</p>"
    least = max(1e-3, min(corrected[0], uncorrected[0] if uncorrected.size else np.inf))
    limits = [verdict["limit_ms"] for verdict in verdicts]
    most = max(float(corrected[-1]), *limits) if limits else float(corrected[-1])
    rarest = max(corrected.size, 20)
    x = Scale(
        1,
        rarest,
        log=True,
        title="percentile",
        ticks=[(1 / (1 - q), label) for q, label in NINES if 1 / (1 - q) <= rarest],
    )
    return Chart(
        x=x,
        y=Scale(least * 0.8, most * 1.3, log=True, title="ms"),
        lines=[
            Line("from the send (uncorrected)", "b", *_by_percentile(uncorrected)),
            Line("from the schedule (corrected)", "a", *_by_percentile(corrected)),
        ],
        levels=[(verdict["limit_ms"], verdict["slo"]) for verdict in verdicts],
        label="Latency in milliseconds by percentile",
    ).draw()


def _by_percentile(ordered: Floats) -> tuple[Floats, Floats]:
    """Compute 200 points (1/(1 − q), q-quantile)."""
    n = ordered.size
    rarity = np.geomspace(1, max(n, 2), 200)
    rank = np.minimum((n * (1 - 1 / rarity)).astype(int), n - 1)
    return rarity, ordered[rank]


def timeline(
    run: Run,
    *,
    bin_s: float | None = None,
    marks: Sequence[tuple[float, str]] = (),
    levels: Sequence[tuple[float, str]] = (),
) -> str:
    """Chart p50, p99 and maximum by scheduled time."""
    at, response = run.columns.at[run.measured], 1e3 * run.response()
    start = float(run.columns.at[run.first]) if run.count else 0.0
    for_p99 = 150 * run.span / max(run.count, 1)  # seconds for p99 to differ from the maximum
    width = bin_s or max(0.1, np.ceil(10 * min(run.span / 12, max(for_p99, run.span / 150))) / 10)
    edges = np.arange(start, start + run.span + width, width)
    place = np.searchsorted(at, edges)
    table = np.full((edges.size - 1, 3), np.nan)
    for number, (first, last) in enumerate(pairwise(place)):
        here = response[first:last]
        here = here[~np.isnan(here)]
        if here.size:
            table[number] = percentile(here, 0.5), percentile(here, 0.99), here.max()
    middle = (edges[:-1] + edges[1:]) / 2
    if np.isnan(table).all():
        return "<p>No answers.</p>"
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    high = max([high, *(value for value, _ in levels)])
    return Chart(
        x=Scale(start, start + run.span, title=f"seconds, in steps of {width:.2g} s"),
        y=Scale(max(1e-3, low * 0.8), high * 1.3, log=True),
        lines=[
            Line("p50", "c", middle, table[:, 0]),
            Line("p99", "a", middle, table[:, 1]),
            Line("worst", "d", middle, table[:, 2]),
        ],
        marks=marks,
        levels=levels,
        label="Latency in milliseconds over time",
    ).draw()


def endings(run: Run) -> str | None:
    """Chart requests per second by how they ended; None if all were OK."""
    bucket, at = run.columns.bucket[run.measured], run.columns.at[run.measured]
    if (bucket == Bucket.OK).all():
        return None
    start = float(run.columns.at[run.first])
    edges = np.linspace(start, start + run.span, min(100, max(2, int(run.span))) + 1)
    width = edges[1] - edges[0]
    styles = {Bucket.OK: "c", Bucket.SHED: "b", Bucket.FAILED: "d", Bucket.TIMED_OUT: "a"}
    lines = [
        Line(
            kind.name.lower().replace("_", " "),
            styles.get(kind, "e"),
            (edges[:-1] + edges[1:]) / 2,
            np.histogram(at[bucket == kind], edges)[0] / width,
        )
        for kind in Bucket
        if (bucket == kind).any()
    ]
    top = max(float(np.max(line.y)) for line in lines)
    return Chart(
        x=Scale(start, start + run.span, title="seconds"),
        y=Scale(0, 1.1 * top),
        lines=lines,
        label="Requests per second by how they ended",
        height=220,
    ).draw()


def knee(points: Sequence[dict[str, Any]], knee_rate: float, limit_ms: float, slo: str) -> str:
    """Chart latency against the offered rate, with the knee."""
    rate = [point["rate"] for point in points]
    names = {"p50": "c", "p99": "a", "p99.9": "d"}
    values = {n: np.array([p["latency_ms"][n] for p in points], np.float64) for n in names}
    every = np.concatenate(list(values.values()))  # None is NaN
    low, high = float(np.nanmin(every)), max(float(np.nanmax(every)), limit_ms)
    return Chart(
        x=Scale(0, 1.05 * max(rate), title="requests a second, offered"),
        y=Scale(0.8 * low, 1.3 * high, log=True),
        lines=[
            Line(n, style, rate, values[n], dots=True)
            for n, style in names.items()
            if not np.isnan(values[n]).all()
        ],
        levels=[(limit_ms, slo)],
        marks=[(knee_rate, f"knee: {knee_rate:.1f}/s")],
        label="Latency in milliseconds against the offered rate",
    ).draw()


def goodput(points: Sequence[dict[str, Any]], knee_rate: float) -> str:
    """Chart answered rate and goodput against the offered rate."""
    rate = [point["rate"] for point in points]
    good = [point["goodput_per_s"] for point in points]
    answered = [point["answered_per_s"] for point in points]
    return Chart(
        x=Scale(0, 1.05 * max(rate), title="requests a second, offered"),
        y=Scale(0, 1.1 * max(*answered, knee_rate)),
        lines=[
            Line("answered", "b", rate, answered, dots=True),
            Line("answered in time (goodput)", "c", rate, good, dots=True),
        ],
        marks=[(knee_rate, f"knee: {knee_rate:.1f}/s")],
        label="Goodput against the offered rate",
        height=220,
    ).draw()


def intervals(effects: dict[str, dict[str, Any]]) -> str:
    """Chart ratio and interval of each metric: B over A, and A over itself."""
    edges = [
        effect[kind][edge]
        for effect in effects.values()
        for kind in ("b_over_a", "control")
        for edge in ("low", "high")
    ]
    low, high = min(0.95, *edges), max(1.05, *edges)
    arms = (("b_over_a", "B over A", "a", 0.35), ("control", "A against itself", "e", 0.65))
    lines = []
    for number, effect in enumerate(effects.values()):
        for kind, name, style, offset in arms:
            ratio, place = effect[kind], number + offset
            lines.append(Line(name, style, [place, place], [ratio["low"], ratio["high"]]))
            lines.append(Line(name, style, [place], [ratio["ratio"]], dots=True))
    return Chart(
        x=Scale(0, len(effects), ticks=[(n + 0.5, name) for n, name in enumerate(effects)]),
        y=Scale(low * 0.98, high * 1.02),
        lines=lines,
        levels=[(1.0, "no difference")],
        label="Ratios with their intervals",
    ).draw()


def memory(samples: Sequence[dict[str, Any]]) -> str:
    """Chart resident memory of the service, MiB."""
    at = [sample["at_s"] for sample in samples]
    size = [sample["resident_mib"] for sample in samples]
    return Chart(
        x=Scale(0, max(at), title="seconds"),
        y=Scale(0, 1.15 * max(size)),
        lines=[Line("resident MiB", "a", at, size)],
        label="Resident memory over time",
        height=220,
    ).draw()
