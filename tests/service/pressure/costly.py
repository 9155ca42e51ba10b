"""Scoring at half the knee beside callers of everything else that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from service.admission.loop_budget import FAULTS, KINDS
from tests.service.pressure.bars import SETTLE_S
from tests.service.pressure.bench import GENERATOR, Bench
from tests.service.pressure.callers import Called, calling, request_bytes
from tests.service.world import World

CALLERS = (1, 4, 32)
MOST_RATIO, MOST_PROBE_S = 1.5, 0.05
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
    """Bar 5: every route and number of callers. A/A: half the knee alone, twice."""
    found: Json = {"rate_per_s": round(bench.knee / 2, 1)}
    everything = requests_of(bench.world)
    chosen = {name: everything[name] for name in (only or everything)}
    p99s = [_alone(bench, seconds, 40), _alone(bench, seconds, 41)]
    found["alone_p99_ms"] = p99s
    alone = min(p99s)
    found["a_a_ratio"] = round(max(p99s) / alone, 3)
    for name, wire in chosen.items():
        found[name] = {}
        for callers in CALLERS:
            before = _spent(bench)
            with calling(bench.service.port, wire, callers, GENERATOR) as called:
                run = bench.run([(bench.knee / 2, SETTLE_S + seconds)], seed=42)
            spent = (_spent(bench) - before) / called.seconds
            late = run.at >= SETTLE_S
            p99 = run.ms(99, late & run.ok()) or float("inf")
            row = found[name][str(callers)] = _row(p99, alone, run.counts(late), called)
            row["loop_share"] = round(spent, 3)
            say(f"{name} × {callers}: {row}")
    rows = [row for part in chosen for row in found[part].values()]
    found["worst_ratio"] = max(row["ratio"] for row in rows)
    found["worst_probe_ms"] = max(row["probe_max_ms"] for row in rows)
    return {**found, "met": all(row["met"] for row in rows)}


def _spent(bench: Bench) -> float:
    """Seconds of the event loop, on what is no scoring."""
    kinds = (*KINDS, FAULTS)
    return sum(bench.metric("qin_budget_seconds_total", kind=kind) for kind in kinds)


def _alone(bench: Bench, seconds: float, seed: int) -> float:
    run = bench.run([(bench.knee / 2, SETTLE_S + seconds)], seed=seed)
    p99 = run.ms(99, (run.at >= SETTLE_S) & run.ok())
    assert p99 is not None
    return p99


def _row(p99: float, alone: float, counts: dict[str, int], called: Called) -> Json:
    ratio, probe = p99 / alone, max(called.probes, default=0.0)
    answered = counts["ok"] >= 0.99 * sum(counts.values())
    return {
        "p99_ms": p99,
        "ratio": round(ratio, 3),
        "counts": {name: count for name, count in counts.items() if count},
        "statuses_per_s": {
            str(status): round(count / called.seconds, 1)
            for status, count in sorted(called.statuses.items())
        },
        "probe_max_ms": round(1e3 * probe, 1),
        "met": ratio <= MOST_RATIO and probe <= MOST_PROBE_S and answered,
    }
