"""Scoring at half the knee beside callers of everything else that costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import orjson

from loadtest.experiments.search import Unsteady
from service.admission.loop_budget import FAULTS, KINDS
from tests.service.pressure.bars import SETTLE_S
from tests.service.pressure.bench import GENERATOR, Bench, Outcome
from tests.service.pressure.callers import Called, calling, request_bytes
from tests.service.world import World

CALLERS = (1, 4, 32)
MOST_RATIO, MOST_PROBE_S = 1.5, 0.05
MOST_TRIES = 3  # of a run whose generator was late
MEGABYTE, LONG = 1_000_000, 5000
LIST = b'{"user_id":1,"candidates":['
Json = dict[str, Any]


def requests_of(world: World) -> dict[str, list[bytes]]:
    """Ready-made, by route."""
    ids, random = world.ids, np.random.default_rng(9)
    long = random.choice(ids, LONG).tolist()
    features = {
        f.name: world.rows[f.name][0].tolist() for f in (*world.schema.item, *world.schema.context)
    }
    for name, value in features.items():
        if isinstance(value, list) and world.rows[name].dtype.kind in "iu":
            features[name] = [one for one in value if one]
    batch = [
        {"user_id": 10_000 + n, "item_ids": random.choice(ids, 32).tolist()} for n in range(1000)
    ]

    def score(**body: Any) -> bytes:
        return request_bytes("POST", "/v1/score", orjson.dumps({"user_id": 1, **body}))

    return {
        "events": [request_bytes("POST", "/v1/events", orjson.dumps({"events": batch}))],
        "an event": [
            request_bytes("POST", "/v1/events", orjson.dumps({"user_id": 10_000, "item_id": 1}))
        ],
        "item writes": [
            request_bytes("PUT", f"/v1/items/{item}", orjson.dumps(features))
            for item in ids[:100].tolist()
        ],
        "item reads": [request_bytes("GET", f"/v1/items/{ids[0]}")],
        "explain": [score(candidates=long, explain=5)],
        "missed": [
            score(candidates=random.integers(2**40, 2**62, LONG).tolist()) for _ in range(200)
        ],
        "metrics": [request_bytes("GET", "/metrics")],
        "stats": [request_bytes("GET", "/v2/models/stats")],
        "breaks off": [request_bytes("POST", "/v1/score", LIST + b"1," * (MEGABYTE // 2))],
        "line breaks": [request_bytes("POST", "/v1/score", b"\n" * MEGABYTE)],
        "infer": [request_bytes("POST", "/v2/models/qin/infer", b'{"inputs":[' * 80_000)],
        "oversized": [request_bytes("POST", "/v1/score", b"1" * 4 * MEGABYTE)],
    }


def costly(
    bench: Bench, seconds: float, only: list[str], say: Callable[[str], None] = lambda _: None
) -> Json:
    """Bar 5: every route and number of callers, each route between two runs alone (A/A): the
    machine's speed varies by half within minutes."""
    found: Json = {"rate_per_s": round(bench.knee / 2, 1)}
    everything = requests_of(bench.world)
    chosen = {name: everything[name] for name in (only or everything)}
    p99s = [_alone(bench, seconds, 40)]
    for name, wire in chosen.items():
        beside = {callers: _beside(bench, seconds, wire, callers) for callers in CALLERS}
        p99s.append(_alone(bench, seconds, 41))
        pair = p99s[-2:]
        alone = sum(pair) / 2
        found[name] = {"alone_p99_ms": pair, "a_a_ratio": round(max(pair) / min(pair), 3)}
        for callers, row in beside.items():
            row["ratio"] = round(row["p99_ms"] / alone, 3)
            row["met"] = row["met"] and row["ratio"] <= MOST_RATIO
            found[name][str(callers)] = row
            say(f"{name} × {callers}: {row}")
        say(f"alone: {pair}")
    rows = [found[name][str(callers)] for name in chosen for callers in CALLERS]
    found["a_a_ratio"] = round(max(p99s) / min(p99s), 3)
    found["worst_ratio"] = max(row["ratio"] for row in rows)
    found["worst_probe_ms"] = max(row["probe_max_ms"] for row in rows)
    return {**found, "met": all(row["met"] for row in rows)}


def _beside(bench: Bench, seconds: float, wire: list[bytes], callers: int) -> Json:
    """One row, whose ``met`` is without the ratio yet."""
    before = _spent(bench)
    with calling(bench.service.port, wire, callers, GENERATOR) as called:
        run = _steady(bench, seconds, 42)
    spent = (_spent(bench) - before) / called.seconds
    late = run.at >= SETTLE_S
    p99 = run.ms(99, late & run.ok()) or float("inf")
    return {**_row(p99, run.counts(late), called), "loop_share": round(spent, 3)}


def _spent(bench: Bench) -> float:
    """Seconds of the event loop, on what is no scoring."""
    kinds = (*KINDS, FAULTS)
    return sum(bench.metric("qin_budget_seconds_total", kind=kind) for kind in kinds)


def _alone(bench: Bench, seconds: float, seed: int) -> float:
    run = _steady(bench, seconds, seed)
    p99 = run.ms(99, (run.at >= SETTLE_S) & run.ok())
    assert p99 is not None
    return p99


def _steady(bench: Bench, seconds: float, seed: int) -> Outcome:
    """Run at half the knee; again when the generator was late. Unsteady when it is each time."""
    for _ in range(MOST_TRIES - 1):
        with suppress(Unsteady):
            return bench.run([(bench.knee / 2, SETTLE_S + seconds)], seed=seed)
    return bench.run([(bench.knee / 2, SETTLE_S + seconds)], seed=seed)


def _row(p99: float, counts: dict[str, int], called: Called) -> Json:
    probe = max(called.probes, default=0.0)
    answered = counts["ok"] >= 0.99 * sum(counts.values())
    return {
        "p99_ms": p99,
        "counts": {name: count for name, count in counts.items() if count},
        "statuses_per_s": {
            str(status): round(count / called.seconds, 1)
            for status, count in sorted(called.statuses.items())
        },
        "probe_max_ms": round(1e3 * probe, 1),
        "met": probe <= MOST_PROBE_S and answered,
    }
