"""Latency targets, as ``p99=25ms``: a share of scheduled requests rightly answered in time."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.statistics import enough_for
from loadtest.analysis.verdict import CONFIDENCE, Judgement, judge
from loadtest.units import seconds

FORM = re.compile(r"^p(\d{1,2}(?:\.\d+)?)=(.+)$")


class SloError(ValueError):
    """A malformed target; the message shows the form."""


@dataclass(frozen=True, slots=True)
class Slo:
    """``percentile`` in (0, 1), ``limit`` in seconds."""

    text: str
    percentile: float
    limit: float

    @classmethod
    def parse(cls, text: str) -> Slo:
        match = FORM.match(text.strip())
        if match is None or not 0 < float(match[1]) < 100:
            raise SloError(f"slo: {text!r} should be written like p99=25ms")
        try:
            return cls(text.strip(), float(match[1]) / 100, seconds(match[2]))
        except ValueError as error:
            raise SloError(f"slo: {error}") from None

    def judge(self, good: NDArray[np.bool_], confidence: float = CONFIDENCE) -> Judgement:
        """Judge ``good`` (n,), answered rightly and in time; all others count as over, shed ones
        included."""
        over = int(good.size - np.count_nonzero(good))
        fewest = enough_for(self.percentile)
        if good.size < fewest:
            return Judgement("undecided", 0.0, good.size, over, fewest)
        return judge(good.size, over, self.percentile, confidence)
