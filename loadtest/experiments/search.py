"""Searches for the knee: the largest rate that meets a target; measures the rates around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loadtest.analysis.results import reasons, summarise
from loadtest.analysis.slo import Slo
from loadtest.analysis.verdict import needed
from loadtest.generator.runner import Load, RunError, execute

CONFIRMATIONS = 3
CURVE = (0.25, 0.5, 0.7, 0.85, 0.95, 1.0, 1.1, 1.25, 1.5, 2.0)  # of the knee
HIGHEST = 1e6
Json = dict[str, Any]
Say = Callable[[str], None]


class Unsteady(RunError):
    """A rate whose runs were invalid twice."""


@dataclass(frozen=True)
class Search:
    """A search; ``precision``: relative distance of the last rate to meet and first to miss.

    A step takes ``load.seconds``, or longer until five requests over the limit cannot decide it
    alone. ``curve``: rates to measure, as shares of the knee.
    """

    load: Load
    slo: Slo
    precision: float = 0.05
    say: Say = print
    curve: Sequence[float] = CURVE

    def run(self) -> Json:
        """Bracket, bisect, confirm three times with other seeds, then measure the curve."""
        steps: list[Json] = []
        low, high = self._bracket(steps)
        while high / low > 1 + self.precision:
            middle = (low * high) ** 0.5
            holds = self._holds(middle, steps)
            low, high = (middle, high) if holds else (low, middle)
        knee, confirmed = self._confirm(low, steps)
        points = [self.measure(knee * share, 100 + i) for i, share in enumerate(self.curve)]
        return {
            "knee_per_s": knee,
            "confirmations": confirmed,
            "first_miss_per_s": high,
            "slo": self.slo.text,
            "limit_ms": 1e3 * self.slo.limit,
            "goodput_at_knee_per_s": next(
                p["goodput_per_s"] for p, c in zip(points, self.curve, strict=True) if c == 1.0
            ),
            "steps": steps,
            "points": points,
        }

    def _bracket(self, steps: list[Json]) -> tuple[float, float]:
        rate = self.load.rate
        if self._holds(rate, steps):
            while rate < HIGHEST:
                if not self._holds(2 * rate, steps):
                    return rate, 2 * rate
                rate *= 2
            raise RunError(f"the target still holds at {rate:,.0f} requests/s")
        while rate > 0.2:
            if self._holds(rate / 2, steps):
                return rate / 2, rate
            rate /= 2
        raise RunError(f"{self.slo.text} does not even hold at {rate:.2g} requests/s")

    def _confirm(self, knee: float, steps: list[Json]) -> tuple[float, int]:
        """Require three passes in a row with other seeds; each miss lowers the knee by 5%."""
        while knee > 0.2:
            passes = 0
            while passes < CONFIRMATIONS and self._holds(knee, steps):
                passes += 1
            if passes == CONFIRMATIONS:
                return knee, passes
            knee *= 1 - self.precision
        raise RunError(f"no rate held {self.slo.text} three times")

    def _holds(self, rate: float, steps: list[Json]) -> bool:
        step = self.measure(rate, len(steps))
        steps.append(step)
        return bool(step["verdict"] == "pass")

    def measure(self, rate: float, number: int) -> Json:
        """Run one step. One that is invalid, or of which nothing is answered rightly, is repeated
        once: then Unsteady, or the search ends, as no other rate would do better."""
        length = max(self.load.seconds, needed(5, self.slo.percentile) / rate)
        for attempt in range(2):
            load = replace(
                self.load, rate=rate, seconds=length, seed=self.load.seed + 1000 * attempt + number
            )
            with execute(load) as run:
                result = summarise(run, [self.slo])
            if result["interrupted_after_s"] is not None:
                raise RunError("stopped")
            ends = result["buckets"]
            refused = not (ends["ok"] or ends["timed_out"] or ends["unsent"])
            if result["verdict"] != "invalid" and not refused:
                break
        else:
            if refused:
                because = reasons(result)
                raise RunError(f"at {rate:.1f}/s no request was answered rightly: {because}")
            raise Unsteady(f"at {rate:.1f}/s: {'; '.join(result['invalid_because'])}")
        point = {
            "rate": rate,
            "verdict": result["verdict"],
            "seconds": length,
            "requests": result["requests"],
            "latency_ms": result["latency_ms"]["corrected"],
            "shed_ms": result["shed_ms"],
            "goodput_per_s": result["rate"]["goodput_per_s"],
            "answered_per_s": result["rate"]["answered_per_s"],
            "buckets": result["buckets"],
            "cold_users": result["cold_users"],
            "lag_p99_ms": result["clocks_ms"]["lag"]["p99"],
        }
        tail = point["latency_ms"]["p99"]
        shown = "–" if tail is None else f"{tail:.2f} ms"
        self.say(f"{rate:9.1f}/s  {point['verdict']:9}  p99 {shown}")
        return point
