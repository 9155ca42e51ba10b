"""How often a version was asked, how that ended, and where its time went.

``service.observability.model_metrics`` shows it to Prometheus; the statistics of the Open Inference
Protocol are read from it.
"""

from __future__ import annotations

from time import time

from service.timings import Timings

OUTCOMES = SUCCESS, FAIL = "success", "fail"
# Where the time of a successful inference went, in the protocol's words: stages of ``Timings``.
STAGES = {
    "queue": ("queue",),
    "compute_input": ("receive", "parse", "store", "table", "items"),
    "compute_infer": ("history", "rank"),
    "compute_output": ("encode",),
}
PARTS = (*OUTCOMES, *STAGES)


class Inferences:
    """Of one version since it is in memory. On the event loop alone."""

    __slots__ = ("count", "last", "seconds")

    def __init__(self) -> None:
        self.count = dict.fromkeys(OUTCOMES, 0)
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = 0.0  # seconds since the epoch; 0: never

    def ended(self, status: int, timings: Timings) -> None:
        """A request that took this version was answered or refused."""
        outcome, seconds, took = SUCCESS if status < 400 else FAIL, self.seconds, timings.seconds
        self.count[outcome] += 1
        seconds[outcome] += timings.total
        self.last = time()
        if outcome == SUCCESS:
            for part, stages in STAGES.items():
                seconds[part] += sum(took.get(stage, 0.0) for stage in stages)
