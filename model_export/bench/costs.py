"""Measures overheads that should be zero: named functions, an unused output, a large catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner

from model_export.bench.graphs import Folded, Folder
from model_export.bench.interleave import Run, medians
from model_export.bench.request import ITEMS, Request
from model_export.bundle.sessions import open_session

CATALOGUES = (10_000, 100_000)  # rows of the item table that candidates are gathered from


def ranker_costs(
    folder: Folder, folded: Folded, request: Request, seconds: float, threads: int
) -> dict[str, Any]:
    """Time four variants of the ranker on one chunk, interleaved.

    As written; with its functions inlined; without the attention output; and with the attention
    of every candidate requested, as ``explain`` does.
    """
    items, history = folded.prepare(request)
    feeds = folded.model.feeds(items, history, folded.user)
    graph = folder.graph("ranker")
    written = open_session(graph, threads)
    flat, mute = _flat(graph), _mute(graph)
    flattened, muted = open_session(flat, threads), open_session(mute, threads)
    runs: dict[str, Run] = {
        "named_functions": lambda: written.run(["probability"], feeds),
        "flat": lambda: flattened.run(["probability"], feeds),
        "without_attention": lambda: muted.run(["probability"], feeds),
        "explained": lambda: written.run(["probability", "attention"], feeds),
        "load_named_functions": lambda: open_session(graph, threads),
        "load_flat": lambda: open_session(flat, threads),
    }
    timed = medians(runs, seconds)
    return {
        "candidates": len(request.candidates),
        "history": len(request.history),
        **{f"{name}_ms": reading.ms for name, reading in timed.items()},
        "repeats": {name: reading.repeats for name, reading in timed.items()},
        "named_over_flat": timed["named_functions"].ms / timed["flat"].ms,
        "unasked_explain": timed["named_functions"].ms / timed["without_attention"].ms,
    }


def _flat(graph: Path) -> Path:
    """Write the graph with its functions inlined, over the same weights."""
    model = onnx.load(graph, load_external_data=False)
    return _written(onnx.inliner.inline_local_functions(model), graph, "flat")


def _mute(graph: Path) -> Path:
    """Write the graph with the probability as its only output."""
    model = onnx.load(graph, load_external_data=False)
    del model.graph.output[1:]
    assert model.graph.output[0].name == "probability"
    return _written(model, graph, "mute")


def _written(model: onnx.ModelProto, graph: Path, name: str) -> Path:
    file = graph.with_name(f"{graph.stem}.{name}.onnx")
    file.write_bytes(model.SerializeToString())
    return file


def catalogue_costs(folded: Folded, request: Request, seconds: float) -> dict[str, Any]:
    """Time gathering and ranking one chunk from item tables of several sizes."""
    random = np.random.default_rng(0)
    history = folded.prepare(request)[1]

    def from_table(size: int) -> Run:
        table = folded.items.take(np.arange(size) % ITEMS)
        chosen = random.integers(0, size, len(request.candidates))
        return lambda: folded.model.exact(table.take(chosen), history, folded.user)

    timed = medians({str(size): from_table(size) for size in CATALOGUES}, seconds)
    small, large = (timed[str(size)].ms for size in CATALOGUES)
    return {
        "candidates": len(request.candidates),
        "items": list(CATALOGUES),
        "ms": [small, large],
        "repeats": [timed[str(size)].repeats for size in CATALOGUES],
        "large_over_small": large / small,
    }
