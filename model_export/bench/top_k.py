"""Benchmarks exact top-k (int8 or bf16, then a rescored shortlist) against all in float32.

Both run on the same model and rows, interleaved. Answers are equal if ids, order and every bit of
the scores are.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import FeatureSchema
from model_export.bench.graphs import Folded
from model_export.bench.interleave import milliseconds
from model_export.bench.request import Request, random_items
from model_export.build import Bf16, Int8, build
from model_export.bundle.bundle import Bundle
from model_export.bundle.graphs import Precision
from model_export.bundle.processor import Kind, processor
from model_export.bundle.shortlist import out_of_bound, shortlist
from model_export.bundle.top_k import best
from model_export.bundle.vectors import Floats
from model_export.quality.random_network import calm, random_network
from model_export.quality.random_rows import random_held_out
from training.progress import OnProgress, no_progress
from training.qin import QINSizes

SMALL_WIDTH = 16  # of every embedding of the narrow network
CALM = 0.5  # factor on the scale of every batch norm
BAR = 1.8  # least speed-up over float32 with random weights,
BARS: dict[Kind, float] = {"amx": 3.0, "vnni": 2.0, "other": 1.0}  # and with a trained bundle


@dataclass(frozen=True, slots=True)
class ListShape:
    k: int
    candidates: int
    history: int


@dataclass(slots=True)
class Results:
    """Results of both variants over several lists."""

    different: int = 0
    out_of_bound: int = 0  # lists scored in float32, as their error exceeded the bound
    rescored: list[int] = field(default_factory=list)  # candidates of each list
    fp32_ms: list[float] = field(default_factory=list)
    top_k_ms: list[float] = field(default_factory=list)

    def figures(self, folded: Folded, low: Precision) -> dict[str, Any]:
        fp32, quick = statistics.median(self.fp32_ms), statistics.median(self.top_k_ms)
        return {
            "network_width": folded.model.schema.network_width,
            "logit_bound": float(folded.model_in(low).logit_bound),
            "lists": len(self.rescored),
            "different": self.different,
            "out_of_bound": self.out_of_bound,
            "rescored_median": statistics.median(self.rescored),
            "rescored_most": max(self.rescored),
            "fp32_ms": fp32,
            "top_k_ms": quick,
            "speedup": fp32 / quick,
        }


def run(
    schema: FeatureSchema,
    shape: ListShape,
    *,
    bundle: Bundle | None = None,
    catalogue: ItemRows | None = None,
    sizes: QINSizes | None = None,
    low: Precision = "int8",
    lists: int = 10_000,
    seconds: float = 20.0,
    threads: int = 1,
    announce: OnProgress = no_progress,
) -> dict[str, Any]:
    """``speed``: lists for ``seconds`` on ``bundle``, or on random weights at full size.

    ``catalogue``: items that lists for ``bundle`` are drawn from; random ones would be far from
    its training data and the data of its bound.
    ``exactness``: ``lists`` lists on a narrow random network, for at most six times ``seconds``.
    ``low``: the precision of shortlists, int8 or bf16.
    """
    with tempfile.TemporaryDirectory() as folder:
        announce(f"fold the network, run its {low} gate", 0, 3)
        full, known = bundle, catalogue
        if full is None:
            full, known = _random_bundle(schema, sizes, Path(folder), low)
        announce("speed", 1, 3)
        speed = _contest(full, known, shape, threads, low, lists=None, seconds=seconds)
        announce(f"{lists} lists", 2, 3)
        small = QINSizes(attention_width=3 * SMALL_WIDTH)
        narrow, items = _random_bundle(_narrow(schema), small, Path(folder) / "narrow", low)
        exactness = _contest(narrow, items, shape, threads, low, lists=lists, seconds=seconds * 6)
        announce("done", 3, 3)
    different = speed["different"] + exactness["different"]
    here = processor()
    bar = BAR if bundle is None else BARS[here.kind]
    return {
        "k": shape.k,
        "candidates": shape.candidates,
        "history": shape.history,
        "threads": threads,
        "precision": low,
        "processor": str(here),
        "least_speedup": bar,
        "subject": f"bundle {bundle.version}" if bundle else f"random weights, {schema.name}",
        "speed": speed,
        "exactness": exactness,
        "met": bool(speed["speedup"] >= bar and different == 0 and exactness["lists"] >= lists),
    }


def _random_bundle(
    schema: FeatureSchema, sizes: QINSizes | None, folder: Path, low: Precision
) -> tuple[Bundle, ItemRows]:
    """Build a bundle with int8 or bf16; return it and the items of its bound.

    The batch norms are scaled down: otherwise single random candidates reach logits near 60, which
    costs the others of their list the resolution of int8. Trained networks have no such outliers.
    """
    network = random_network(schema, sizes)
    calm(network, CALM)
    held_out = random_held_out(network)
    if low == "bf16":
        bundle = build(network, folder, bf16=Bf16(held_out, force=True))
    else:
        bundle = build(network, folder, int8=Int8(held_out, force=True))
    return bundle, held_out.rows.items.rows[1:]


def _narrow(schema: FeatureSchema) -> FeatureSchema:
    """The same features with narrow embeddings."""
    narrow = {"width": SMALL_WIDTH}
    return schema.model_copy(
        update={
            room: tuple(feature.model_copy(update=narrow) for feature in getattr(schema, room))
            for room in ("item", "context", "user", "request")
        }
    )


def _contest(
    bundle: Bundle,
    catalogue: ItemRows | None,
    shape: ListShape,
    threads: int,
    low: Precision,
    *,
    lists: int | None,
    seconds: float,
) -> dict[str, Any]:
    """Time lists for ``seconds``, at most ``lists`` of them."""
    random, results = np.random.default_rng(0), Results()
    items = random_items(bundle.schema, random) if catalogue is None else catalogue
    folded = Folded(bundle, threads, items, plugin=low == "bf16")
    end = time.monotonic() + seconds
    while (lists is None or len(results.rescored) < lists) and time.monotonic() < end:
        _ask(folded, shape, random, results, low)
    return results.figures(folded, low)


def _ask(
    folded: Folded,
    shape: ListShape,
    random: np.random.Generator,
    results: Results,
    low: Precision,
) -> None:
    request = Request.random(shape.candidates, shape.history, random, len(folded.rows))
    items, history = folded.prepare(request)
    k, bound = shape.k, folded.model_in(low).logit_bound
    answers: dict[str, tuple[NDArray[np.int64], Floats]] = {}  # way -> positions, probabilities

    def in_full() -> None:
        probability = folded.probabilities(items, history)
        chosen = best(probability, k)
        answers["fp32"] = chosen, probability[chosen]

    def at_its_price() -> None:
        quick = folded.quick_logits(items, history, low)
        chosen = shortlist(quick, k, bound)
        probability, logit = folded.rescored(items.take(chosen), history)
        if out_of_bound(quick[chosen], logit, bound):
            results.out_of_bound += 1
            chosen, probability = np.arange(len(quick)), folded.probabilities(items, history)
        found = best(probability, k)
        answers[low] = chosen[found], probability[found]
        results.rescored.append(len(chosen))

    for way, taken in ((in_full, results.fp32_ms), (at_its_price, results.top_k_ms)):
        taken.append(milliseconds(way))
    (position, probability), (as_low, rescored) = answers["fp32"], answers[low]
    same = np.array_equal(position, as_low) and np.array_equal(probability, rescored)
    results.different += not same
