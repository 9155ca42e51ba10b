"""Measures turns on the engine: lists of 50 alone, and beside lists of 5,000 without end.

``python -m tests.service.measure_turns --json``: per precision and size of chunk, the latency of
lists of 50 on the engine in both situations, in turns, and what the long lists take. The network
has random weights at the paper's sizes; no HTTP, no store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from feature_store.schema import FeatureSchema
from model_export.bench.graphs import Folder, write_graphs
from model_export.bundle import openvino
from model_export.bundle.graphs import Precision
from model_export.bundle.processor import processor
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.vectors import HistoryRows, ItemVectors
from model_export.quality.random_network import random_network
from model_export.quality.random_rows import random_held_out
from service.engine.engine import Engine

SHORT, LONG = 50, 5_000
MOST_RATIO = 1.6
CHUNKS = (64, 128, 256, 512)
PAUSE_S = 0.02  # between lists of 50, in the mean
FAR_S = 60.0
Prepared = tuple[ItemVectors, HistoryRows]


async def _rank(engine: Engine, model: FoldedModel, prepared: Prepared) -> float:
    """Seconds that a list took on the engine."""
    items, history = prepared

    def run(start: int, end: int) -> None:
        model.rank(items.part(start, end), history)

    began = perf_counter()
    divisible = model.precision == "fp32" and model.is_batch_invariant
    await engine.run(run, len(items), began + FAR_S, lambda: None, divisible=divisible)
    return perf_counter() - began


async def _without_end(
    engine: Engine, model: FoldedModel, prepared: Prepared, taken: list[float]
) -> None:
    while True:
        taken.append(await _rank(engine, model, prepared))


async def _measure(
    model: FoldedModel, short: Prepared, long: Prepared, chunk: int, threads: int, seconds: float
) -> dict[str, Any]:
    engine = Engine(threads, chunk=chunk)
    alone, beside, longs = list[float](), list[float](), list[float]()
    gaps = random.Random(0)
    try:
        for prepared in (short, long):  # compiles
            await _rank(engine, model, prepared)
        for number in range(8):
            task = None
            if number % 2:
                task = asyncio.create_task(_without_end(engine, model, long, longs))
            end = perf_counter() + seconds / 8
            while perf_counter() < end:
                await asyncio.sleep(gaps.expovariate(1 / PAUSE_S))
                (beside if number % 2 else alone).append(await _rank(engine, model, short))
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    finally:
        engine.close()
    p50 = [1e3 * float(np.median(taken)) for taken in (alone, beside)]
    p99 = [1e3 * float(np.percentile(taken, 99)) for taken in (alone, beside)]
    return {
        "precision": model.precision,
        "chunk": chunk,
        "alone_ms": {"p50": p50[0], "p99": p99[0]},
        "beside_ms": {"p50": p50[1], "p99": p99[1]},
        "ratio": {"p50": p50[1] / p50[0], "p99": p99[1] / p99[0]},
        "long_ms": 1e3 * float(np.median(longs)) if longs else None,
        "lists": len(beside),
        "met": p50[1] <= MOST_RATIO * p50[0],
    }


def measure(
    schema: FeatureSchema,
    sizes: Any = None,
    *,
    chunks: tuple[int, ...] = CHUNKS,
    threads: int = 1,
    seconds: float = 8.0,
) -> dict[str, Any]:
    """Measure every precision that this machine has, at every size of chunk."""
    network = random_network(schema, sizes)
    precisions: list[Precision] = ["fp32", "int8"]
    if openvino.is_usable() and openvino.has_bf16():
        precisions.append("bf16")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        graphs: Folder = write_graphs(network, Path(folder))
        rows = random_held_out(network).rows.items.rows[1:]
        for precision in precisions:
            provider: Any = "openvino" if precision == "bf16" else "cpu"
            model = FoldedModel(graphs, precision=precision, provider=provider, callers=threads)
            short, long = (_prepared(model, rows, count) for count in (SHORT, LONG))
            for chunk in chunks:
                found.append(asyncio.run(_measure(model, short, long, chunk, threads, seconds)))
    return {"processor": str(processor()), "threads": threads, "cases": found}


def _prepared(model: FoldedModel, rows: Any, count: int) -> Prepared:
    draw = np.random.default_rng(count)
    items = model.items(rows)
    most = len(items.vector)
    past = items.vector[draw.integers(0, most, model.schema.history_length)]
    return items.take(draw.integers(0, most, count)), model.history(past)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0, help="per precision and chunk")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunks", default=",".join(map(str, CHUNKS)))
    given = parser.parse_args()
    chunks = tuple(int(part) for part in given.chunks.split(","))
    found = measure(
        FeatureSchema.microlens(), chunks=chunks, threads=given.threads, seconds=given.seconds
    )
    if given.json:
        print(json.dumps(found))
        return 0
    print(f"{found['processor']}, {found['threads']} thread(s)")
    for case in found["cases"]:
        print(
            f"{case['precision']} {case['chunk']:4d}: alone {case['alone_ms']['p50']:6.2f} ms, "
            f"beside {case['beside_ms']['p50']:6.2f} ms ({case['ratio']['p50']:.2f}×, p99 "
            f"{case['ratio']['p99']:.2f}×); a list of {LONG:,} {case['long_ms'] or 0:7.1f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
