"""Checks batch invariance: whether a score has the same bits however its list is cut into calls.

It depends on the order in which the runtime's kernels for a processor add up a row's products. If
the order changes with the number of rows, so may the last bit. The runtime documents neither.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np

from feature_store.schema import FeatureSchema
from model_export.bundle.vectors import Candidates, Floats, HistoryRows, ItemVectors

EDGES = (0, 2, 5, 12, 28, 59, 123, 130)  # of the pieces


class Ranker(Protocol):
    """The part of ``FoldedModel`` that is used here."""

    schema: FeatureSchema

    def history(self, vector: Floats) -> HistoryRows: ...
    def exact(self, items: Candidates, history: HistoryRows) -> Floats: ...


def is_batch_invariant(model: Ranker, items: ItemVectors) -> bool:
    """Score a list of ``items``, repeated, as a whole and in pieces of two and more."""
    asked = items.take(np.arange(EDGES[-1]) % len(items))
    longest = model.schema.history_length
    return all(_is_invariant(model, asked, items, length) for length in (0, 1, longest))


def _is_invariant(model: Ranker, asked: ItemVectors, items: ItemVectors, length: int) -> bool:
    """Try it with a history of so many items."""
    history = model.history(items.vector[np.arange(length) % len(items)])
    pieces = [model.exact(asked.part(*span), history) for span in pairwise(EDGES)]
    return np.array_equal(np.concatenate(pieces), model.exact(asked, history), equal_nan=True)
