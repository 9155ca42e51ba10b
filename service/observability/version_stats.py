"""Statistics of one model version: requests by outcome, where their time went, latest latencies.

``service.observability.model_metrics`` exports the first two, from which the Open Inference
Protocol's statistics are read; the rollback monitor reads the rest.
"""

from __future__ import annotations

from array import array
from time import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.context import StageTimer

OUTCOMES = SUCCESS, FAIL = "success", "fail"
# Where the time of a successful inference went, in the protocol's words: stages of ``StageTimer``.
STAGES = {
    "queue": ("queue",),
    "compute_input": ("receive", "parse", "store", "table", "items"),
    "compute_infer": ("history", "rank"),
    "compute_output": ("encode",),
}
PARTS = (*OUTCOMES, *STAGES)
LATEST = 4096  # latencies kept
KINDS = 1 << 16


class VersionStats:
    """Counts since the version was loaded; those of the monitor since ``mark``. On the event loop
    alone.

    Latencies are what engine threads spent on an online request, without its waiting, by its kind:
    the powers of two of its candidates and of its history.
    """

    def __init__(self) -> None:
        self.requests = dict.fromkeys(OUTCOMES, 0)  # answered or refused, of all that took it
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = 0.0  # seconds since the epoch; 0: never
        self.answers = self.failures = 0  # failures: of the model alone
        self.expired = 0  # online requests whose deadline passed
        self._latencies = array("f", bytes(4 * LATEST))
        self._candidates, self._history = (array("i", bytes(4 * LATEST)) for _ in range(2))
        self._timed = 0
        self._answers_before = self._timed_before = 0  # the mark

    def ended(self, status: int, timer: StageTimer) -> None:
        """Count a request that took this version."""
        outcome, seconds, took = SUCCESS if status < 400 else FAIL, self.seconds, timer.seconds
        self.requests[outcome] += 1
        seconds[outcome] += timer.total
        self.last = time()
        if outcome == SUCCESS:
            for part, stages in STAGES.items():
                for stage in stages:
                    seconds[part] += took.get(stage, 0.0)

    def answered(self) -> None:
        self.answers += 1

    def failed(self) -> None:
        self.failures += 1

    def took(self, candidates: int, history: int, seconds: float) -> None:
        """Keep the latency of an online request."""
        place = self._timed % LATEST
        self._latencies[place] = seconds
        self._candidates[place] = candidates
        self._history[place] = history
        self._timed += 1

    def latest(self) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """(≤ LATEST,) kinds and seconds of the latest answers since the mark, in no order."""
        kept = min(self._timed - self._timed_before, LATEST)
        places = np.arange(self._timed - kept, self._timed) % LATEST
        # (LATEST,) as ``int.bit_length`` of each
        candidates, history = (np.frexp(many)[1] for many in (self._candidates, self._history))
        kinds = (candidates << 8 | history).astype(np.uint16)
        return kinds[places], np.array(self._latencies, np.float32)[places]

    @property
    def since_mark(self) -> int:
        """Answers."""
        return self.answers - self._answers_before

    def mark(self) -> None:
        """Start the monitor's counts again: a version is judged by what follows its activation."""
        self.failures = self.expired = 0
        self._answers_before, self._timed_before = self.answers, self._timed


def shape_of(kind: Any) -> tuple[int, int]:
    """Candidates and history items in the middle of a kind."""
    return _middle(int(kind) >> 8), _middle(int(kind) & 0xFF)


def _middle(power: int) -> int:
    return 3 << power >> 2 if power > 1 else power
