"""Draws the number of candidates per request: fixed or from a distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST = 100_000


class CandidateCountsError(ValueError):
    """A malformed distribution; the message lists the forms."""


@dataclass(frozen=True)
class CandidateCounts:
    """``64`` | ``10..500`` | ``lognormal:MEDIAN:SIGMA[:MOST]`` | ``50@0.9,5000@0.1``"""

    text: str

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw (count,) counts, each at least 1; CandidateCountsError for a malformed text."""
        try:
            lengths = self._draw(rng, count)
        except (ValueError, IndexError) as error:
            raise CandidateCountsError(
                f"candidates: {self.text!r} is none of {CandidateCounts.__doc__}"
            ) from error
        if lengths.min(initial=1) < 1 or lengths.max(initial=1) > LONGEST:
            raise CandidateCountsError(
                f"candidates: {self.text!r} is outside the range 1 … {LONGEST:,}"
            )
        return lengths

    def _draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        if "@" in self.text:
            parts = [part.split("@") for part in self.text.split(",")]
            lengths = np.array([int(length) for length, _ in parts])
            shares = np.array([float(share) for _, share in parts])
            return rng.choice(lengths, count, p=shares / shares.sum())
        if self.text.startswith("lognormal:"):
            _, median, sigma, *most = self.text.split(":")
            drawn = rng.lognormal(math.log(float(median)), float(sigma), count)
            return np.clip(np.rint(drawn), 1, int(most[0]) if most else LONGEST).astype(np.int64)
        if ".." in self.text:
            low, high = self.text.split("..")
            return rng.integers(int(low), int(high), count, endpoint=True)
        return np.full(count, int(self.text))
