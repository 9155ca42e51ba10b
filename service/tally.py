"""How the answers of one version went: how many, how many failed, how long the latest took."""

from __future__ import annotations

from array import array

import numpy as np

LATEST = 4096  # answers whose times are kept


class Tally:
    """Counts since the version was loaded, or since ``Tally.mark``. On the event loop alone."""

    def __init__(self) -> None:
        self.answers = self.failures = 0
        self._seconds = array("f", bytes(4 * LATEST))
        self._begun = 0  # the answer that ``latest`` begins with

    def answered(self, seconds: float) -> None:
        self._seconds[self.answers % LATEST] = seconds
        self.answers += 1

    def failed(self) -> None:
        self.failures += 1

    def latest(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """(≤ LATEST,) seconds of the latest answers since the mark, in no order."""
        kept = min(self.answers - self._begun, LATEST)
        seconds = np.array(self._seconds, np.float32)
        return seconds[np.arange(self.answers - kept, self.answers) % LATEST]

    @property
    def since_mark(self) -> int:
        """Answers."""
        return self.answers - self._begun

    def mark(self) -> None:
        """Begin anew: a version that is switched to is judged by what it does from now on."""
        self.failures = 0
        self._begun = self.answers
