"""How many candidates a request carries: a fixed number or a distribution of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST = 100_000


class SizesError(ValueError):
    """A distribution that cannot be read; the message shows the forms there are."""


@dataclass(frozen=True)
class Sizes:
    """``64`` | ``10..500`` | ``lognormal:MEDIAN:SIGMA[:MOST]`` | ``50@0.9,5000@0.1``"""

    text: str

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """(count,) list lengths, each at least 1. SizesError when ``text`` is none of the forms."""
        try:
            lengths = self._draw(rng, count)
        except (ValueError, IndexError) as error:
            raise SizesError(f"candidates: {self.text!r} is none of {Sizes.__doc__}") from error
        if lengths.min(initial=1) < 1 or lengths.max(initial=1) > LONGEST:
            raise SizesError(f"candidates: {self.text!r} leaves the range 1 … {LONGEST:,}")
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
