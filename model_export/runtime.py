"""Runs a bundle's graphs: item features and a history in, click probabilities out.

Sessions are shared by every thread: ``run`` is thread-safe and releases the interpreter's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import Dense
from model_export.bundle import Bundle, Staging
from model_export.errors import BundleError

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """What the ranker needs of an item, fixed for a model version."""

    vector: Floats  # (N, D)
    row: Floats  # (N, X): its share of the first layer, the layer's bias included


@dataclass(frozen=True, slots=True)
class HistoryRows:
    """One user's history, made ready for the ranker. L = 0 is an empty history."""

    keys: Floats  # (L, D)
    values: Floats  # (L, D)
    rows: Floats  # (L, X): its share of the first layer


class FoldedModel:
    """A bundle's three graphs. Build once per version, share between threads."""

    def __init__(self, bundle: Bundle | Staging, *, threads: int = 1) -> None:
        """``threads``: intra-op threads per call; one, unless a lone caller owns the machine."""
        self.schema = bundle.schema
        self.version = bundle.version
        self._item_tower = _session(bundle.graph("item_tower"), threads)
        self._history_tower = _session(bundle.graph("history_tower"), threads)
        self._ranker = _session(bundle.graph("ranker"), threads)

    def items(self, rows: ItemRows) -> ItemVectors:
        """(N,) of ``schema.item_dtype``. An index at or beyond the vocabulary counts as 0."""
        feeds: dict[str, NDArray[Any]] = {}
        for feature in self.schema.item:
            values = rows[feature.name]
            if isinstance(feature, Dense):
                feeds[feature.name] = np.ascontiguousarray(values, np.float32)
            else:
                feeds[feature.name] = _known(values, feature.vocabulary)
        vector, row = self._item_tower.run(["vector", "row"], feeds)
        return ItemVectors(vector, row)

    def cold(self, rows: ItemRows) -> NDArray[np.bool_]:
        """(N,): which items this model has no identity for (index 0, or beyond its vocabulary)."""
        if self.schema.identity is None:
            return np.zeros(len(rows), np.bool_)
        index = rows[self.schema.identity]
        vocabulary = next(
            f.vocabulary
            for f in self.schema.item
            if f.name == self.schema.identity and not isinstance(f, Dense)
        )
        return (index <= 0) | (index >= vocabulary)

    def history(self, vector: Floats) -> HistoryRows:
        """(L, D) item vectors, in any order; L may be 0."""
        return HistoryRows(*self._history_tower.run(["keys", "values", "rows"], {"vector": vector}))

    def rank(self, vector: Floats, row: Floats, context: Indices, history: HistoryRows) -> Floats:
        """(C, D), (C, X), (C, context features), history -> probability (C,).

        One call is one chunk: cut long lists before. A context index at or beyond the vocabulary
        counts as 0.
        """
        return self._rank("probability", vector, row, context, history)

    def logits(self, vector: Floats, row: Floats, context: Indices, history: HistoryRows) -> Floats:
        """As ``rank``, before the sigmoid."""
        return self._rank("logit", vector, row, context, history)

    def _rank(
        self, output: str, vector: Floats, row: Floats, context: Indices, history: HistoryRows
    ) -> Floats:
        feeds: dict[str, NDArray[Any]] = {
            "vector": vector,
            "row": row,
            "history_keys": history.keys,
            "history_values": history.values,
            "history_rows": history.rows,
        }
        for column, feature in enumerate(self.schema.context):
            feeds[feature.name] = _known(context[:, column], feature.vocabulary)
        answer: Floats = self._ranker.run([output], feeds)[0]
        return answer

    def signatures(self) -> dict[str, dict[str, tuple[str, list[Any]]]]:
        """graph -> input or output name -> (type, shape), as the runtime sees them."""
        return {
            name: {a.name: (a.type, a.shape) for a in (*s.get_inputs(), *s.get_outputs())}
            for name, s in (
                ("item_tower", self._item_tower),
                ("history_tower", self._history_tower),
                ("ranker", self._ranker),
            )
        }


def _known(indices: NDArray[Any], vocabulary: int) -> Indices:
    """Contiguous int32; what the model never saw becomes 0, the padding row."""
    known = np.where((indices > 0) & (indices < vocabulary), indices, 0)
    return known.astype(np.int32, copy=False)


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors: they are raised as well
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(
            f"{graph}: onnxruntime {onnxruntime.__version__} cannot load it: {error}; "
            "rebuild the bundle with `python -m model_export build`"
        ) from error
