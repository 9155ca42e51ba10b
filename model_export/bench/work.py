"""Counts multiply-adds per candidate and bytes of weights."""

from __future__ import annotations

from typing import Any

from model_export.bench.floors import floors
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.multiply_adds import multiply_adds
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.published import published, shared_user
from model_export.graphs.ranker import ranker, ranker_int8
from training.qin import QIN


def work(network: QIN, history: int) -> dict[str, Any]:
    """Dense multiply-adds of one more candidate against ``history`` items; weights in bytes.

    ``arithmetic_speedup``: published over folded; ``arithmetic_over_floor``: folded over its large
    products alone.
    """
    folded = FoldedNetwork.of(network)
    fp32, int8 = ranker(folded), ranker_int8(folded)
    floor = next(iter(floors(folded)))
    each = {
        "published": _per_candidate(published(network), history),
        "shared_user": _per_candidate(shared_user(network), history),
        "folded": _per_candidate(fp32, history),
        "floor": _per_candidate(floor, history),
    }
    return {
        "history": history,
        "multiply_adds_per_candidate": each,
        "weight_bytes": {"folded_fp32": fp32.weight_bytes, "folded_int8": int8.weight_bytes},
        "arithmetic_speedup": each["published"] / each["folded"],
        "arithmetic_over_floor": each["folded"] / max(each["floor"], 1),
    }


def _per_candidate(graph: GraphWriter, history: int) -> int:
    """The cost of a second candidate, which cancels out the user's share."""
    model = graph.model()
    one, two = (multiply_adds(model, {"C": count, "L": history}) for count in (1, 2))
    return two - one
