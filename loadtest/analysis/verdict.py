"""Judges a percentile target from n requests of which ``over`` were too slow.

MLPerf LoadGen's early-stopping criterion (Inference rules, appendix "Early stopping"; tolerance 0):
if the share of slow requests were 1 − p or more, then so few of them would have probability
P(Binomial(n, 1 − p) ≤ over). A target is met with confidence c once that is ≤ 1 − c.
At p = c = 99%: 459 requests with none over, 662 with one, 1,307 with five, 6,898 with fifty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.99
Outcome = Literal["pass", "fail", "undecided"]


def at_most(over: int, n: int, share: float) -> float:
    """Compute P(Binomial(n, share) ≤ over), exactly up to float rounding."""
    if over >= n:
        return 1.0
    # The terms' ratios, in logarithms: C(n, k+1)/C(n, k) · share/(1 − share)
    k = np.arange(over, dtype=np.float64)
    ratios = np.log((n - k) / (k + 1)) + math.log(share) - math.log1p(-share)
    terms = n * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(ratios)])
    largest = terms.max()
    return float(min(1.0, math.exp(largest) * np.exp(terms - largest).sum()))


def needed(over: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """Compute the fewest requests with ``over`` slow ones that show ``percentile`` to be met."""
    share, low = 1 - percentile, over
    high = max(16, 2 * over)
    while at_most(over, high, share) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if at_most(over, middle, share) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True)
class Judgement:
    """An outcome with its confidence (for ``undecided``: that the target is met)."""

    outcome: Outcome
    confidence: float
    samples: int
    over: int
    needed: int  # requests for a pass with so many over


def judge(n: int, over: int, percentile: float, confidence: float = CONFIDENCE) -> Judgement:
    """Return pass or fail at ``confidence``, else undecided."""
    wanted = needed(over, percentile, confidence)
    below = at_most(over, n, 1 - percentile) if n else 1.0
    if n and below <= 1 - confidence:
        return Judgement("pass", 1 - below, n, over, wanted)
    # Missed: if the share were only 1 − p, so many over would be improbable.
    above = 1 - at_most(over - 1, n, 1 - percentile) if over else 1.0
    if n and above <= 1 - confidence:
        return Judgement("fail", 1 - above, n, over, wanted)
    return Judgement("undecided", 1 - below, n, over, wanted)
