"""How the answers of one version went: how many, how many failed, how long the latest took."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATEST = 4096  # answers whose times are kept
KINDS = 1 << 16


class Tally:
    """Counts since the version was loaded, or since ``Tally.mark``. On the event loop alone.

    Times are those that engine threads spent on a request, without its waiting, by its kind: the
    powers of two of its candidates and of its history. A batch request's are not kept.
    """

    def __init__(self) -> None:
        self.answers = self.failures = 0
        self.expired = 0  # online requests whose deadline passed
        self._seconds = array("f", bytes(4 * LATEST))
        self._candidates, self._history = (array("i", bytes(4 * LATEST)) for _ in range(2))
        self._timed = 0
        self._answers_before = self._timed_before = 0  # the mark

    def answered(self) -> None:
        self.answers += 1

    def took(self, candidates: int, history: int, seconds: float) -> None:
        """An online request's own work."""
        place = self._timed % LATEST
        self._seconds[place] = seconds
        self._candidates[place] = candidates
        self._history[place] = history
        self._timed += 1

    def failed(self) -> None:
        self.failures += 1

    def latest(self) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """(≤ LATEST,) kinds and seconds of the latest answers since the mark, in no order."""
        kept = min(self._timed - self._timed_before, LATEST)
        places = np.arange(self._timed - kept, self._timed) % LATEST
        # (LATEST,) as ``int.bit_length`` of each
        candidates, history = (np.frexp(many)[1] for many in (self._candidates, self._history))
        kinds = (candidates << 8 | history).astype(np.uint16)
        return kinds[places], np.array(self._seconds, np.float32)[places]

    @property
    def since_mark(self) -> int:
        """Answers."""
        return self.answers - self._answers_before

    def mark(self) -> None:
        """Begin anew: a version that is switched to is judged by what it does from now on."""
        self.failures = self.expired = 0
        self._answers_before, self._timed_before = self.answers, self._timed


def shape_of(kind: Any) -> tuple[int, int]:
    """Candidates and history items in the middle of a kind."""
    return _middle(int(kind) >> 8), _middle(int(kind) & 0xFF)


def _middle(power: int) -> int:
    return 3 << power >> 2 if power > 1 else power
