"""Summarises a run: every number in reports and JSON is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest import environment
from loadtest.analysis.slo import Slo
from loadtest.analysis.stages import stage_breakdown
from loadtest.analysis.statistics import (
    QUANTILES,
    block_bootstrap,
    enough_for,
    percentile,
    percentiles,
)
from loadtest.generator.columns import COLD_USER, Bucket, Reason
from loadtest.generator.runner import Run
from loadtest.generator.workload import SCORE, Workload
from loadtest.oracle.comparison import OracleReport
from loadtest.units import human

LAG_SHARE = 0.10  # of the target; more lag than this makes a run invalid
RATE_TOLERANCE = 0.01
LEAST_LIMIT = 10e-3  # seconds; without a target, lag is compared with p99 or this, if greater

Json = dict[str, Any]


def summarise(run: Run, slos: Sequence[Slo] = (), oracle: OracleReport | None = None) -> Json:
    """Compute all numbers of a run for JSON. Times in milliseconds, rates per second."""
    columns, rows = run.columns, run.measured
    bucket = columns.bucket[rows]
    answered = np.isin(bucket, (Bucket.OK, Bucket.WRONG, Bucket.TIMED_OUT))
    response = run.response()
    span = run.span
    verdicts = [_verdict(slo, bucket, response) for slo in slos]
    invalid = _why_invalid(run, slos)
    return {
        "verdict": _overall(invalid, verdicts, bucket),
        "invalid_because": invalid,
        "verdicts": verdicts,
        "requests": run.count,
        "buckets": {kind.name.lower(): int(np.sum(bucket == kind)) for kind in Bucket},
        "reasons": _counted(columns.reason[rows], Reason),
        "statuses": {str(k): v for k, v in _counted(columns.status[rows]).items() if k},
        "candidates": {
            "asked": int(columns.candidates[rows].sum()),
            "unknown": int(columns.unknown[rows].sum()),
        },
        "cold_users": _cold_users(run),
        "features": _features(run),
        "rate": {
            "scheduled_per_s": run.count / span,
            "achieved_per_s": _achieved(run),
            "answered_per_s": _answered_in_time(run) / span,
            "goodput_per_s": _goodput(slos, bucket, response) / span,
        },
        "latency_ms": {
            "corrected": percentiles(response[answered]),
            "uncorrected": percentiles(run.service()[answered]),
        },
        "clocks_ms": {
            "lag": percentiles(run.lag()),
            "connect": percentiles(run.connect()),
            "service": percentiles(run.service()[answered]),
            "response": percentiles(response[answered]),
        },
        "intervals_ms": _intervals(response[answered]),
        "shed_ms": percentiles(response[bucket == Bucket.SHED]),
        "events": int(np.sum(run.bank.kind[columns.entry[rows]] != SCORE)),
        "warmup_requests": run.first,
        "versions": {
            name: int(np.sum(columns.version[rows] == number))
            for number, name in enumerate(run.versions)
        },
        "oracle": oracle and asdict(oracle),
        "stages": stage_breakdown(run),
        "generators": run.generators,
        "interrupted_after_s": run.interrupted_at,
        **environment.provenance(run.load, run.started),
    }


def reasons(result: Json) -> str:
    """Name why requests did not end as OK, and the statuses of those with another than 2xx."""
    found = [f"{name.replace('_', ' ')} {count:,}" for name, count in result["reasons"].items()]
    found += [f"HTTP {k} {count:,}" for k, count in result["statuses"].items() if k[0] != "2"]
    return ", ".join(found)


def _cold_users(run: Run) -> Json:
    """Count the answers that say whether their user was cold, and those whose user was."""
    cold, load = run.columns.cold[run.measured], run.load
    return {
        "answers": int(np.count_nonzero(cold)),
        "cold": int(np.sum(cold == COLD_USER)),
        "default_users": load.replay is None and load.workload.users == Workload.users,
    }


def _features(run: Run) -> Json | None:
    """Count the requests that give a value of each request feature; None if none gives any."""
    bank, given, total = run.bank, Counter[str](), 0
    times = np.bincount(run.columns.entry[run.measured], minlength=len(bank.wire)).tolist()
    for entry, count in enumerate(times):
        if count and b'"features":' in bank.wire[entry]:
            values = bank.document(entry).get("features") or {}
            given.update({name: count for name, value in values.items() if value is not None})
            total += count
    return {"requests": total, "given": dict(sorted(given.items()))} if total else None


def _verdict(slo: Slo, bucket: NDArray[np.uint8], response: NDArray[np.float64]) -> Json:
    good = (bucket == Bucket.OK) & (response <= slo.limit)
    known = response[(bucket == Bucket.OK) | (bucket == Bucket.WRONG)]
    judgement = slo.judge(good)
    quotable = known.size and judgement.samples >= enough_for(slo.percentile)
    return {
        "slo": slo.text,
        "limit_ms": 1e3 * slo.limit,
        "measured_ms": 1e3 * percentile(known, slo.percentile) if quotable else None,
        **asdict(judgement),
    }


def _overall(invalid: list[str], verdicts: list[Json], bucket: NDArray[np.uint8]) -> str:
    """Combine verdicts; any wrong answer, or no right one, is a failure."""
    if invalid:
        return "invalid"
    if (bucket == Bucket.WRONG).any() or not (bucket == Bucket.OK).any():
        return "fail"
    outcomes = {verdict["outcome"] for verdict in verdicts}
    for outcome in ("fail", "undecided"):
        if outcome in outcomes:
            return outcome
    return "pass" if outcomes else "measured"


def _why_invalid(run: Run, slos: Sequence[Slo]) -> list[str]:
    """Reasons why a run does not measure the service; empty if it does."""
    reasons = []
    if run.interrupted_at is not None:
        reasons.append(f"stopped after {run.interrupted_at:.1f} s")
    lag = run.lag()
    lag = lag[~np.isnan(lag)]
    if not lag.size:
        return [*reasons, "no request was sent"]
    late = percentile(lag, 0.99)
    if slos:
        limit, against = min(slo.limit for slo in slos), "the target"
    else:
        response = run.response()
        measured = percentile(response[~np.isnan(response)], 0.99)
        limit, against = max(LEAST_LIMIT, 0 if np.isnan(measured) else measured), "p99"
    if late > LAG_SHARE * limit:
        reasons.append(
            f"the generator was late: lag p99 {human(late)} is more than 10% of {against} "
            f"({human(limit)}); lower the rate, add --generator-cores or free the machine"
        )
    scheduled, achieved = run.count / run.span, _achieved(run)
    if run.interrupted_at is None and abs(achieved / scheduled - 1) > RATE_TOLERANCE:
        reasons.append(f"wrong rate: {achieved:.1f} requests/s sent, {scheduled:.1f} scheduled")
    return reasons


def _achieved(run: Run) -> float:
    """Requests attended per second, over a span that includes the generator's delay."""
    attended = run.columns.attended[run.measured]
    attended = attended[~np.isnan(attended)]
    if not attended.size:
        return 0.0
    late = max(0.0, float(attended[-1] - run.columns.at[run.measured][attended.size - 1]))
    return attended.size / (run.span + late)


def _goodput(slos: Sequence[Slo], bucket: NDArray[np.uint8], response: NDArray[np.float64]) -> int:
    """Count right answers within the limit of the highest percentile with one."""
    limit = max(slos, key=lambda slo: slo.percentile).limit if slos else np.inf
    return int(np.sum((bucket == Bucket.OK) & (response <= limit)))


def _answered_in_time(run: Run) -> int:
    """Count right answers during the schedule; a backlog answered later is not throughput."""
    begin = run.load.warmup if run.load.replay is None else 0.0
    done = run.columns.done[run.measured]
    right = run.columns.bucket[run.measured] == Bucket.OK
    return int(np.sum(right & (done <= begin + run.span)))


def _intervals(response: NDArray[np.float64]) -> dict[str, list[float] | None]:
    intervals: dict[str, list[float] | None] = {}
    for name, q in QUANTILES.items():
        interval = block_bootstrap(response, q) if response.size * (1 - q) >= 5 else None
        intervals[name] = None if interval is None else [1e3 * edge for edge in interval]
    return intervals


def _counted(values: NDArray[Any], names: type[Reason] | None = None) -> dict[Any, int]:
    found, counts = np.unique(values, return_counts=True)
    return {
        (names(value).name.lower() if names else int(value)): int(count)
        for value, count in zip(found, counts, strict=True)
        if value
    }
