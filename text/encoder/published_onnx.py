"""Compares an imported network with the ONNX graph that was published beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from text.encoder.jinabert import JinaBert
from text.encoder.weights import opened
from text.tokenizer import TextTokenizer
from training.checkpoint import CheckpointError

GRAPH = Path("onnx") / "model.onnx"
# Largest difference of a unit vector's numbers. Weights that were rounded to half precision, of a
# graph that has them unrounded or the reverse, differ by about 1e-3 of themselves.
TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-3
TINY = 1e-30  # length of a vector
LENGTHS = (3, 12, 60, 260, 700)  # tokens; beyond 512 attention goes by blocks
HALF = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
SENTENCES = (
    "The invoice for March was sent on Tuesday, and paid by the end of the week.",
    "Die Straßenbahn hält heute nicht am Bahnhof, weil die Brücke gesperrt ist.",
    "¿Cuándo llegará el próximo envío de las piezas que pedimos en septiembre?",
    "def total(items): return sum(item.price * item.count for item in items)",
)


@dataclass(frozen=True)
class Comparison:
    """How a graph's vectors compare; ``reason`` says why they were not compared."""

    verified: bool
    reason: str | None = None
    largest_difference: float | None = None
    tolerance: float | None = None
    tokens: tuple[int, ...] = ()


def compare(path: Path, network: JinaBert, tokenizer: TextTokenizer, half: bool) -> Comparison:
    """Compare unit vectors of texts of several lengths. Raises CheckpointError where they differ.

    ``half``: the weights were rounded to float16 or bfloat16.
    """
    texts = ids_of_texts(tokenizer)
    try:
        opened(path)
        answers = _answers(path, texts, network.sizes.hidden)
    except (CheckpointError, _NotComparableError) as error:
        return Comparison(False, str(error))
    differences = []
    for ids, theirs in zip(texts, answers, strict=True):
        with torch.inference_mode():
            vector = network.embed(torch.from_numpy(ids), torch.tensor([ids.shape[1]]))
        ours = F.normalize(vector.double(), dim=-1).numpy()[0]
        if not np.isfinite(theirs).all():
            known = "a known fault of float16 graphs" if _is_half(path) else "a faulty graph"
            return Comparison(False, f"{path}: the graph's vectors are not finite: {known}")
        unit = theirs / max(float(np.linalg.norm(theirs)), TINY)
        differences.append(float(np.abs(ours - unit).max()))
    worst = max(differences)
    tolerance = HALF_TOLERANCE if half or (worst > TOLERANCE and _is_half(path)) else TOLERANCE
    if not worst <= tolerance:
        raise CheckpointError(
            f"{path}: vectors differ by up to {worst:.1e} from those of the weights, more than "
            f"{tolerance:g}: the graph of another checkpoint, or one that is not read right; "
            "delete the file to import without it"
        )
    lengths = tuple(ids.shape[1] for ids in texts)
    return Comparison(True, None, worst, tolerance, lengths)


def ids_of_texts(tokenizer: TextTokenizer) -> list[NDArray[np.int64]]:
    """Return the ids (1, L) of the texts that are compared."""
    found = []
    for longest in LENGTHS:
        text = " ".join(f"{SENTENCES[n % len(SENTENCES)]} {n}" for n in range(longest // 8 + 1))
        found.append(tokenizer.encode([text], longest).ids.astype(np.int64)[None])
    return found


class _NotComparableError(Exception):
    """A graph that does not run, or has no vectors."""


def _answers(
    path: Path, texts: Sequence[NDArray[np.int64]], width: int
) -> list[NDArray[np.float64]]:
    """Return the graph's mean vector (D,) of each text."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # As written: it is the graph that is compared, not fusions of this version.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = [session.run(None, _feed(session.get_inputs(), ids)) for ids in texts]
    except KeyError as error:
        raise _NotComparableError(f"{path}: the graph has an input {error.args[0]}") from error
    except Exception as error:  # onnxruntime's share no base
        reason = " ".join(str(error).split())[:200]
        raise _NotComparableError(f"{path}: the graph does not run: {reason}") from error
    return [_pooled(path, of_text, ids, width) for of_text, ids in zip(outputs, texts, strict=True)]


def _feed(inputs: Sequence[Any], ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    given = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    return {
        each.name: given[each.name].astype(np.int32 if "int32" in each.type else np.int64)
        for each in inputs
    }


def _pooled(
    path: Path, outputs: Sequence[Any], ids: NDArray[np.int64], width: int
) -> NDArray[np.float64]:
    """Return the mean (D,) of token vectors (1, L, D), or the vector (1, D) that is an output."""
    arrays = [np.asarray(each, np.float64) for each in outputs]
    vectors: list[NDArray[np.float64]] = [
        each[0].mean(0) for each in arrays if each.shape == (*ids.shape, width)
    ]
    vectors += [each[0] for each in arrays if each.shape == (1, width)]
    if not vectors:
        raise _NotComparableError(f"{path}: no output (1, {ids.shape[1]}, {width})")
    return vectors[0]


def _is_half(path: Path) -> bool:
    graph = onnx.load(str(path), load_external_data=False).graph
    cast = (each.i for node in graph.node if node.op_type == "Cast" for each in node.attribute)
    return not HALF.isdisjoint([*(each.data_type for each in graph.initializer), *cast])
