"""The four bars: figures, and whether they are met."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtest.analysis.queueing import md1_response
from tests.service.pressure.bench import Bench, Outcome

Json = dict[str, Any]
SETTLE_S = 2.0  # left out at the beginning of a run
BACK_S = 5.0  # after which all must be as before
BESIDE_S = 15.0  # of half the knee, before an overload and after it
SHORT, LONG = 50, 5000  # candidates
LONG_SHARE = 0.1  # of the work
PATIENT = {"X-Deadline-Ms": "10000"}


def own_time(bench: Bench, seconds: float = 8) -> float:
    """Seconds that one request takes the service when nobody else asks."""
    quiet = bench.run([(20, seconds)])
    return float(np.nanmedian(quiet.service[quiet.at > SETTLE_S]))


def half_the_knee(bench: Bench, seconds: float) -> Json:
    """Bar 1a: p99 at half the knee against an M/D/1 queue of the measured service time.

    Which is processor time, or a lone request's time to its answer if that is less.
    """
    own, rate = own_time(bench), bench.knee / 2
    before = bench.metric("process_cpu_seconds_total")
    run = bench.run([(rate, SETTLE_S + seconds)], seed=3)
    processor = (bench.metric("process_cpu_seconds_total") - before) / len(run.at)
    late = run.at >= SETTLE_S
    p99 = run.ms(99, late & run.ok())
    theory = 1e3 * md1_response(0.99, rate, min(own, processor))
    assert p99 is not None
    return {
        "rate_per_s": round(rate, 1),
        "own_ms": round(1e3 * own, 3),
        "processor_ms": round(1e3 * processor, 3),
        "p50_ms": run.ms(50, late & run.ok()),
        "p99_ms": p99,
        "md1_p99_ms": round(theory, 3),
        "ratio": round(p99 / theory, 3),
        "counts": run.counts(late),
        "met": p99 <= 1.3 * theory and _all_answered(run, late),
    }


def over_the_engine(bench: Bench, seconds: float) -> Json:
    """Bar 1b: HTTP against the engine's own time at 512 candidates.

    Asked for a quarter of the engine's time, so that what is compared is hardly ever waiting.
    """
    rate = 0.25 / _own(bench.run([(2, SETTLE_S + 5)], candidates="512"))
    run = bench.run([(rate, SETTLE_S + seconds)], candidates="512", stages=True)
    late = run.at >= SETTLE_S
    engine = float(np.nanmedian((run.stages["history"] + run.stages["rank"])[late]))
    p50 = run.ms(50, late & run.ok())
    assert p50 is not None
    return {
        "rate_per_s": round(rate, 2),
        "engine_p50_ms": round(engine, 3),
        "http_p50_ms": p50,
        "allowed_ms": round(1.15 * engine + 1.0, 3),
        "met": p50 <= 1.15 * engine + 1.0 and _all_answered(run, late),
    }


def _all_answered(run: Outcome, which: Any) -> bool:
    """But one in a hundred: what was refused is no fast answer."""
    return float(run.ok()[which].mean()) >= 0.99


def overload(bench: Bench, times: float, seconds: float) -> Json:
    """Bar 2a: so many times the knee, half the knee before and after."""
    knee, begin = bench.knee, SETTLE_S + BESIDE_S
    end = begin + seconds
    steps = [(knee / 2, begin), (times * knee, seconds), (knee / 2, BACK_S + BESIDE_S)]
    run = bench.run(steps, seed=5)
    during, limit = run.between(begin, end), bench.slo.limit
    good = run.ok() & (run.response <= limit)
    goodput = int((good & during).sum()) / seconds
    admitted = run.ms(99, during & run.ok())
    refused = run.ms(99, during & run.shed())
    calm = run.between(end + BACK_S, np.inf)
    before = run.ms(99, run.ok() & run.between(SETTLE_S, begin))
    after = run.ms(99, run.ok() & calm)
    failed = int((during & ~run.ok() & ~run.shed()).sum())
    assert admitted is not None
    assert refused is not None
    assert before is not None
    assert after is not None
    return {
        "times": times,
        "rate_per_s": round(times * knee, 1),
        "goodput_per_s": round(goodput, 1),
        "goodput_of_knee": round(goodput / knee, 3),
        "admitted_p99_ms": admitted,
        "refused_p50_ms": run.ms(50, during & run.shed()),
        "refused_p99_ms": refused,
        "p99_before_ms": before,
        "p99_after_5s_ms": after,
        "counts": run.counts(during),
        "neither_answered_nor_refused": failed,
        "lag_p99_ms": round(1e3 * run.lag_p99, 3),
        "met": goodput >= 0.9 * knee
        and admitted <= 1e3 * limit
        and refused <= 5
        and after <= 1.3 * before
        and failed == 0
        and _all_answered(run, calm),
    }


def beside_batch(bench: Bench, seconds: float) -> Json:
    """Bar 2b: online at the knee beside as much batch, then at twice the knee."""
    found = {}
    for share in (1.0, 2.0):
        rate, span = share * bench.knee, seconds + SETTLE_S
        online, batch = bench.together(
            {"steps": [(rate, span)], "seed": 7},
            {"steps": [(bench.knee, span + 6)], "seed": 8, "headers": {"X-Priority": "batch"}},
        )
        late = online.at >= SETTLE_S
        good = online.ok() & (online.response <= bench.slo.limit) & late
        found[f"online_at_{share:g}"] = {
            "goodput_of_knee": round(int(good.sum()) / seconds / bench.knee, 3),
            "p99_ms": online.ms(99, late & online.ok()),
            "counts": online.counts(late),
            "batch_per_s": round(_meanwhile(batch, online, span) / seconds, 1),
        }
    met = all(part["goodput_of_knee"] >= 0.9 for part in found.values())  # type: ignore[operator]
    return {**found, "met": met}


def _meanwhile(batch: Outcome, online: Outcome, span: float) -> int:
    """Batch requests answered while online ones came."""
    begin = online.start - batch.start + SETTLE_S
    return int((batch.ok() & batch.between(begin, begin + span - SETTLE_S)).sum())


def long_lists(bench: Bench, seconds: float, rounds: int = 4) -> Json:
    """Bar 3: lists of 50 at half the capacity, without and with lists of 5,000, in turns.

    All may take as long as they need: a list of 5,000 that is refused would cost nobody anything.
    """
    own = {
        size: _own(bench.run([(rate, seconds)], candidates=str(size), headers=PATIENT))
        for size, rate, seconds in ((SHORT, 20.0, 8.0), (LONG, 0.3, 25.0))
    }
    rate = 0.5 / own[SHORT]
    ratio = LONG_SHARE / (1 - LONG_SHARE) * own[SHORT] / own[LONG]
    mixed = f"{SHORT}@{1 - ratio / (1 + ratio):.6f},{LONG}@{ratio / (1 + ratio):.6f}"
    without, beside, longs = list[float](), list[float](), list[float]()
    for number in range(rounds):
        alone = bench.run(
            [(rate, seconds)], candidates=str(SHORT), headers=PATIENT, seed=20 + number
        )
        late = alone.at >= SETTLE_S
        without += _seconds(alone, late)
        steps = [(rate * (1 + ratio), seconds)]
        both = bench.run(steps, candidates=mixed, headers=PATIENT, seed=30 + number)
        late = both.at >= SETTLE_S
        beside += _seconds(both, late & (both.length <= SHORT))
        longs += _seconds(both, late & (both.length > SHORT))
    p99 = [round(1e3 * float(np.percentile(t, 99)), 3) for t in (without, beside)]
    answered = bool(longs) and float(np.isfinite(longs).mean()) >= 0.9
    return {
        "own_ms": {str(size): round(1e3 * took, 3) for size, took in own.items()},
        "rate_per_s": round(rate, 1),
        "long_lists": len(longs),
        "long_p50_ms": round(1e3 * float(np.median(longs)), 1) if answered else None,
        "long_not_answered": int(np.isinf(longs).sum()),
        "short_not_answered": int(np.isinf(without + beside).sum()),
        "p99_without_ms": p99[0],
        "p99_beside_ms": p99[1],
        "ratio": round(p99[1] / p99[0], 3),
        "met": answered and bool(np.isfinite(p99[1])) and p99[1] <= 2 * p99[0],
    }


def _own(quiet: Outcome) -> float:
    """Seconds from sending a request to its answer, of those that were answered."""
    assert quiet.ok().any(), "nothing was answered"
    return float(np.median(quiet.service[quiet.ok()]))


def _seconds(run: Outcome, which: Any) -> list[float]:
    """Responses; one that was not answered took for ever."""
    found: list[float] = np.where(run.ok(), run.response, np.inf)[which].tolist()
    return found


def deadlines(bench: Bench, deadline_ms: float, seconds: float) -> Json:
    """Bar 4: twice the knee, lists of several lengths, a deadline that many miss."""
    before = {name: bench.metric(name) for name in COUNTED}
    run = bench.run(
        [(2 * bench.knee, seconds)],
        candidates="64@0.9,640@0.1",
        headers={"X-Deadline-Ms": f"{deadline_ms:g}"},
        seed=11,
    )
    late = run.at >= SETTLE_S
    answered = run.ms(99, late & run.ok())
    assert answered is not None
    counted = {name: bench.metric(name) - count for name, count in before.items()}
    return {
        "deadline_ms": deadline_ms,
        "counts": run.counts(late),
        "answered_p99_ms": answered,
        "passed_p99_ms": run.ms(99, late & (run.bucket == 4)),
        **counted,
        "met": counted[COUNTED[0]] == 0 and counted[COUNTED[1]] > 0 and answered <= deadline_ms + 5,
    }


COUNTED = ("qin_engine_expired_run_total", "qin_engine_expired_total")
