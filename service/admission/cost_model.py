"""How long the engine will be busy with so many candidates, learned from what it was busy with.

The time per candidate falls with the length of the list (what a request costs however short it is),
so lengths are kept apart by powers of two, and a length never seen is judged by its nearest.
"""

from __future__ import annotations

FIRST_GUESS_S = 50e-6  # a candidate, before anything was measured
PACE = 0.05  # weight of the newest measurement


class CostModel:
    """Seconds of one engine thread by candidates. On the event loop alone."""

    def __init__(self) -> None:
        self._per_candidate: dict[int, float] = {}  # power of two -> seconds

    def learn(self, candidates: int, seconds: float) -> None:
        power, measured = candidates.bit_length(), seconds / candidates
        known = self._per_candidate.get(power, measured)
        self._per_candidate[power] = known + PACE * (measured - known)

    def predict(self, candidates: int) -> float:
        power = candidates.bit_length()
        rate = self._per_candidate.get(power)
        if rate is None:
            nearest = min(self._per_candidate, key=lambda known: abs(known - power), default=None)
            rate = FIRST_GUESS_S if nearest is None else self._per_candidate[nearest]
        return candidates * rate
