"""Keeps the latest scores of answers and of the shadow, to draw one against the other."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.vectors import Floats

MOST_PAIRS = 1000  # of candidates
MOST_OF_A_REQUEST = 20
MOST_REQUESTS = 512


class ShadowSamples:
    """On the event loop alone."""

    def __init__(self) -> None:
        self._pairs = deque[tuple[float, float]](maxlen=MOST_PAIRS)
        self._seconds = deque[float](maxlen=MOST_REQUESTS)

    def add(self, answered: Floats, shadowed: Floats, seconds: float) -> None:
        """Add (C,) and (C,) probabilities of a request, and how long its graphs ran."""
        few = slice(None, MOST_OF_A_REQUEST)
        self._pairs.extend(zip(answered[few].tolist(), shadowed[few].tolist(), strict=True))
        self._seconds.append(seconds)

    def pairs(self) -> NDArray[np.float64]:
        """(N, 2) probabilities: of the answer, of the shadow."""
        return np.array(self._pairs, np.float64).reshape(-1, 2)

    def seconds(self) -> NDArray[np.float64]:
        """(R,) seconds that the shadow's graphs ran, by request."""
        return np.array(self._seconds, np.float64)
