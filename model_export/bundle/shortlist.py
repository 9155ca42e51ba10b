"""Exact top-k by int8: a shortlist by its error bound, to be rescored in float32."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from model_export.bundle.extremes import magnitude
from model_export.bundle.graphs import Precision
from model_export.bundle.vectors import (
    Candidates,
    Floats,
    HistoryRows,
    ItemVectors,
    Positions,
    UserRow,
)

NO_BOUND = np.float32(np.inf)  # in place of the logit of a candidate whose error may be any
MARGIN = 1.5  # factor on the worst error measured: other data may exceed it
SIGMOID_ERROR = 5e-7  # of a float32 probability: those of closer logits may swap or tie


class Ranker(Protocol):
    """The part of ``FoldedModel`` that is used here."""

    reduced: Precision
    largest: tuple[float, float]  # numbers of the gate's candidates: of vectors and of rows

    def logits(
        self, items: Candidates, history: HistoryRows, precision: Precision, user: UserRow | None
    ) -> Floats: ...


def quick_logits(
    model: Ranker, items: Candidates, history: HistoryRows, user: UserRow | None = None
) -> Floats:
    """Logits (C,) for a shortlist, in int8 or bf16.

    ``NO_BOUND`` of a candidate that is larger than the gate's: its error may be, too, and that of
    others that share its call.
    """
    vector, row = model.largest
    usual = (magnitude(items.vector) <= vector) & (magnitude(items.row) <= row)
    if usual.all():
        return model.logits(items, history, model.reduced, user)
    logit = np.full(len(usual), NO_BOUND)
    part = ItemVectors(items.vector[usual], items.row[usual], items.context[usual])
    logit[usual] = model.logits(part, history, model.reduced, user)
    return logit


def shortlist(logit: Floats, k: int, bound: float) -> Positions:
    """Positions, in list order, of every candidate that may be among the k best.

    In the better half of the list, ``logit`` (C,) is off by at most e = ``bound`` × MARGIN;
    ``out_of_bound`` checks that afterwards. So the k-th best float32 logit is at least the k-th
    best of these − e, and a candidate that reaches it has at least that − e here: hence − 2e. In
    between, the sigmoid adds its own error, as probabilities may tie where logits differ. The
    worse half has no known bound, so all are returned if k reaches into it. Those of ``NO_BOUND``
    are always returned, and may have any logit.
    """
    if 2 * k > len(logit) or np.isnan(logit).any():
        return np.arange(len(logit))
    error = MARGIN * bound
    bounded = np.where(logit == NO_BOUND, -np.inf, logit)
    kth = float(np.partition(bounded, len(logit) - k)[len(logit) - k]) - error
    reach = 1 / (1 + math.exp(-min(max(kth, -700.0), 700.0))) - SIGMOID_ERROR
    if reach <= 0:
        return np.arange(len(logit))
    return np.flatnonzero(logit >= math.log(reach / (1 - reach)) - error)


def out_of_bound(logit: Floats, exact: Floats, bound: float) -> bool:
    """Whether an int8 logit (S,) is off by more than ``shortlist`` assumes."""
    bounded = logit != NO_BOUND
    return not bool((np.abs(logit[bounded] - exact[bounded]) <= MARGIN * bound).all())
