"""Samples memory and descriptors of the service under load and judges their growth."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest.experiments.process import ProcessGone, descriptors, resident_mib
from loadtest.generator.poller import clock

Json = dict[str, Any]


@dataclass
class ResourceMonitor:
    """Samples every ``every`` seconds; the ``background`` of ``execute``."""

    pid: int
    every: float = 1.0
    samples: list[Json] = field(default_factory=list)
    gone: bool = False

    def __call__(self, start: float, over: threading.Event) -> None:
        while not over.wait(self.every):
            try:
                self.samples.append(
                    {
                        "at_s": clock() - start,
                        "resident_mib": resident_mib(self.pid),
                        "descriptors": descriptors(self.pid),
                    }
                )
            except ProcessGone:
                self.gone = True
                return

    def judge(self, *, settle: float, growth: float, more_descriptors: int) -> Json:
        """Judge growth after the first ``settle`` (a share) of the run, by the medians of the first
        and the last fifth of the rest; ``growth`` of memory is a share."""
        rest = self.samples[int(settle * len(self.samples)) :]
        if len(rest) < 5:
            because = "too few samples; use a longer --duration"
            if self.gone:
                because = "the process ended"
            return {"passed": False, "because": because, "samples": self.samples}
        fifth = max(1, len(rest) // 5)
        memory = np.array([sample["resident_mib"] for sample in rest])
        opened = np.array([sample["descriptors"] for sample in rest])
        at = np.array([sample["at_s"] for sample in rest])
        before, after = float(np.median(memory[:fifth])), float(np.median(memory[-fifth:]))
        grown = after / before - 1
        more = float(np.median(opened[-fifth:]) - np.median(opened[:fifth]))
        faults = [
            *(["the process ended"] if self.gone else []),
            *([f"memory grew by {grown:.1%}"] if grown > growth else []),
            *([f"{more:.0f} more descriptors"] if more > more_descriptors else []),
        ]
        return {
            "passed": not faults,
            "because": "; ".join(faults),
            "resident_mib_before": before,
            "resident_mib_after": after,
            "growth": grown,
            "mib_per_hour": float(np.polyfit(at, memory, 1)[0]) * 3600,
            "more_descriptors": more,
            "samples": self.samples,
        }
