"""Exact top-k at int8 price: what the error bound cannot rule out is scored again in float32."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]
MARGIN = 1.5  # on the worst error that was seen: other data may do worse
SIGMOID_ERROR = 5e-7  # of a float32 probability; closer logits may change order, or tie


def best(score: Floats, k: int) -> Positions:
    """(C,) -> positions of the k best, best first; ties keep their order, NaN is left out."""
    position = np.flatnonzero(~np.isnan(score))
    if k < len(position):
        # Those that may tie with the k-th, in list order, then a stable sort of those alone.
        threshold = np.partition(score[position], len(position) - k)[len(position) - k]
        position = position[score[position] >= threshold]
    return position[np.argsort(-score[position], kind="stable")[:k]]


def shortlist(logit: Floats, k: int, bound: float) -> Positions:
    """Positions, in list order, of every candidate that may be among the k best.

    In the better half of the list ``logit`` (C,) is off by at most ``bound`` times MARGIN either
    way; ``out_of_bound`` tells afterwards whether that held. Then the k-th best float32 logit is at
    least the k-th best of these minus that error, and whoever reaches it shows at least that minus
    the error again: hence twice. Between the two lies the sigmoid, where float32 probabilities tie
    that float32 logits tell apart. Of the worse half no bound is known: who wants some of it is
    given all of it.
    """
    if 2 * k > len(logit) or np.isnan(logit).any():
        return np.arange(len(logit))
    error = MARGIN * bound
    kth = float(np.partition(logit, len(logit) - k)[len(logit) - k]) - error
    reach = 1 / (1 + math.exp(-min(max(kth, -700.0), 700.0))) - SIGMOID_ERROR
    if reach <= 0:
        return np.arange(len(logit))
    return np.flatnonzero(logit >= math.log(reach / (1 - reach)) - error)


def out_of_bound(logit: Floats, exact: Floats, bound: float) -> bool:
    """Whether some int8 logit (S,) is further from its float32 one than ``shortlist`` relies on."""
    return not bool((np.abs(logit - exact) <= MARGIN * bound).all())
