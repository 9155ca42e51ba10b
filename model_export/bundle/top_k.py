"""The k best of a list of scores."""

from __future__ import annotations

import numpy as np

from model_export.bundle.vectors import Floats, Positions


def best(score: Floats, k: int) -> Positions:
    """(C,) -> positions of the k best, best first; ties keep their order, NaN is left out."""
    position = np.flatnonzero(~np.isnan(score))
    if k < len(position):
        # Those that may tie with the k-th, in list order, then a stable sort of those alone.
        threshold = np.partition(score[position], len(position) - k)[len(position) - k]
        position = position[score[position] >= threshold]
    return position[np.argsort(-score[position], kind="stable")[:k]]
