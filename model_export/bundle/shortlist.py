"""Exact top-k by int8: a shortlist by its error bound, to be rescored in float32."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from model_export.bundle.extremes import magnitude
from model_export.bundle.graphs import Precision
from model_export.bundle.manifest import Largest
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
    largest: Largest | None

    def logits(
        self, items: Candidates, history: HistoryRows, precision: Precision, user: UserRow | None
    ) -> Floats: ...


def quick_logits(
    model: Ranker, items: Candidates, history: HistoryRows, user: UserRow | None = None
) -> Floats:
    """Logits (C,) for a shortlist, in int8 or bf16.

    ``NO_BOUND`` of a candidate that is larger than the gate's: its error may be, too, and that of
    others that share its call. Of all, if the history or the user is.
    """
    most = model.largest
    if most is None:
        return model.logits(items, history, model.reduced, user)
    logit = np.full(len(items.vector), NO_BOUND)
    if _beyond(largest_shared(history, user), most):
        return logit
    usual = (magnitude(items.vector) <= most.vector) & (magnitude(items.row) <= most.row)
    if usual.all():
        return model.logits(items, history, model.reduced, user)
    part = ItemVectors(items.vector[usual], items.row[usual], items.context[usual])
    logit[usual] = model.logits(part, history, model.reduced, user)
    return logit


def largest_shared(history: HistoryRows, user: UserRow | None) -> dict[str, float]:
    """Largest absolute numbers of what a request's candidates share, by the ranker's inputs."""
    parts = {
        "history_keys": history.keys,
        "history_values": history.values,
        "history_rows": history.rows,
    }
    if user is not None:
        parts |= {"user": user.vector, "user_row": user.row}
    return {name: float(magnitude(part.reshape(1, -1))[0]) for name, part in parts.items()}


def _beyond(found: dict[str, float], most: Largest) -> bool:
    return not all(number <= getattr(most, name) for name, number in found.items())


def shortlist(logit: Floats, k: int, bound: float) -> Positions:
    """Positions, in list order, of every candidate that may be among the k best.

    In the better half of the list, ``logit`` (C,) is off by at most e = ``bound`` × MARGIN;
    ``out_of_bound`` checks that afterwards. So the k-th best float32 logit is at least the k-th
    best of these − e, and a candidate that reaches it has at least that − e here: hence − 2e. In
    between, the sigmoid adds its own error, as probabilities may tie where logits differ. The
    worse half has no known bound, so all are returned if k reaches into it. Those of ``NO_BOUND``
    are always returned, and may have any logit.
    """
    bounded = logit[logit != NO_BOUND]
    if 2 * k > len(bounded) or np.isnan(logit).any():
        return np.arange(len(logit))
    error = MARGIN * bound
    kth = float(np.partition(bounded, len(bounded) - k)[len(bounded) - k]) - error
    reach = 1 / (1 + math.exp(-min(max(kth, -700.0), 700.0))) - SIGMOID_ERROR
    if reach <= 0:
        return np.arange(len(logit))
    return np.flatnonzero(logit >= math.log(reach / (1 - reach)) - error)


def out_of_bound(logit: Floats, exact: Floats, bound: float) -> bool:
    """Whether an int8 logit (S,) is off by more than ``shortlist`` assumes."""
    bounded = logit != NO_BOUND
    return not bool((np.abs(logit[bounded] - exact[bounded]) <= MARGIN * bound).all())
