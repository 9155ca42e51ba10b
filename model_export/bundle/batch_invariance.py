"""Tries whether scores have the same bits however their list is cut into calls.

That is so where a kernel sums the products of each row in one order, whatever rows there are
beside it. It is a property of the runtime's kernels for a processor, and not a documented one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np

from model_export.bundle.vectors import Candidates, Floats, HistoryRows, ItemVectors

EDGES = (0, 2, 5, 12, 28, 59, 123, 130)  # of the pieces


class Ranker(Protocol):
    """The part of ``FoldedModel`` that is used here."""

    def exact(self, items: Candidates, history: HistoryRows) -> Floats: ...


def is_batch_invariant(model: Ranker, items: ItemVectors, history: HistoryRows) -> bool:
    """Score a list of ``items``, repeated, as a whole and in pieces of two and more."""
    asked = items.take(np.arange(EDGES[-1]) % len(items))
    pieces = [model.exact(asked.part(*span), history) for span in pairwise(EDGES)]
    return np.array_equal(np.concatenate(pieces), model.exact(asked, history), equal_nan=True)
