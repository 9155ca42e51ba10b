"""Benchmarks user and request features against context features of the same widths.

Both networks have the same X. Of a request they are one row, of context features one gather per
candidate; the ranker is timed in turns, and the user tower, which runs once per request, apart.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.schema import FeatureSchema
from model_export.bench.bars import Bar
from model_export.bench.graphs import Folded, write_graphs
from model_export.bench.interleave import Run, medians
from model_export.bench.request import Request, known_user, random_items
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.multiply_adds import multiply_adds
from model_export.graphs.ranker import ranker
from model_export.quality.random_network import random_network
from training.progress import OnProgress, no_progress
from training.qin import QIN, QINSizes

# Five features of the user and three of the request: vocabulary and width; X = 1,024 in all.
USER = ((10_001, 64), (201, 32), (51, 32), (13, 32), (7, 32))
REQUEST = ((26, 32), (9, 16), (5, 16))
ROOMS = ("context", "user")
WORK = Bar("multiply-adds, user / context", "multiply_adds", 512, 1.01)
TIME = Bar("ranker fp32, user / context", "ms", 512, 1.03)


def run(
    candidates: int,
    history: int,
    seconds: float,
    threads: int = 1,
    *,
    base: FeatureSchema | None = None,
    sizes: QINSizes | None = None,
    announce: OnProgress = no_progress,
) -> dict[str, Any]:
    """Time both networks for ``seconds`` each; ``base``: the item features (MicroLens')."""
    schemas = _schemas(base or FeatureSchema.microlens(), history)
    result: dict[str, Any] = {
        "candidates": candidates,
        "history": history,
        "threads": threads,
        "network_width": schemas["user"].network_width,
    }
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for step, room in enumerate(ROOMS):
            announce(f"the network with {room} features", step, len(ROOMS) + 1)
            network = random_network(schemas[room], sizes)
            result[f"{room}_multiply_adds"] = _work(network, history)
            runs |= _runs(room, network, Path(folder) / room, candidates, history, threads)
        announce("in turns", len(ROOMS), len(ROOMS) + 1)
        timed = medians(runs, seconds)
        announce("done", len(ROOMS) + 1, len(ROOMS) + 1)
    result |= {f"{name}_ms": reading.ms for name, reading in timed.items()}
    result["repeats"] = {name: reading.repeats for name, reading in timed.items()}
    result["bars"] = [
        bar.judge(result[f"user_{bar.figure}"] / result[f"context_{bar.figure}"], history)
        for bar in (WORK, TIME)
    ]
    result["int8_user_over_context"] = result["user_int8_ms"] / result["context_int8_ms"]
    return result


def _schemas(base: FeatureSchema, history: int) -> dict[str, FeatureSchema]:
    """The same features as context of the candidates, and of user and request."""
    items = base.model_copy(update={"context": (), "history_length": history})
    content = items.model_dump(mode="json")
    user, request = (
        [
            {"name": f"{room}_{i}", "kind": "categorical", "vocabulary": n, "width": width}
            for i, (n, width) in enumerate(features)
        ]
        for room, features in (("user", USER), ("request", REQUEST))
    )
    parts: dict[str, dict[str, Any]] = {
        "context": {"context": [*user, *request]},
        "user": {"user": user, "request": request},
    }
    return {room: FeatureSchema.model_validate(content | parts[room]) for room in ROOMS}


def _work(network: QIN, history: int) -> int:
    return multiply_adds(ranker(FoldedNetwork.of(network)).model(), {"C": 1, "L": history})


def _runs(
    room: str, network: QIN, folder: Path, candidates: int, history: int, threads: int
) -> dict[str, Run]:
    folder.mkdir()
    random = np.random.default_rng(0)
    graphs = write_graphs(network, folder)
    folded = Folded(graphs, threads, random_items(network.schema, random))
    items, past = folded.prepare(Request.random(candidates, history, random))
    runs: dict[str, Run] = {
        room: lambda: folded.probabilities(items, past),
        f"{room}_int8": lambda: folded.logits(items, past, "int8"),
    }
    if room == "user":
        record, request = known_user(network.schema)
        runs["user_tower"] = lambda: folded.model.user(record, request)
    return runs
