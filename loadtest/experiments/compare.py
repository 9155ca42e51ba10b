"""Is B different from A? Interleaved in one sitting, with A against itself as the control.

Each round runs six segments, A B A′ A′ B A: the issue's A B B A with a second pair of A inside. All
three sit, on average, at the middle of the round, so a machine that drifts in a straight line
favours none of them. A′ is A again: what A′ seems to differ from A by is what the method cannot
tell from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loadtest.analysis.results import summarise
from loadtest.generator.runner import Load, RunError, execute

ORDER = ("A", "B", "A'", "A'", "B", "A")
METRICS = ("p50", "p90", "p99", "mean")
# Student's t, two-sided 95%, by degrees of freedom
T_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
Json = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """``rounds`` ≥ 3; ``loads`` of A and B differ in url or settings."""

    a: Load
    b: Load
    rounds: int = 4
    say: Callable[[str], None] = print

    def run(self) -> Json:
        """Ratios B/A and A′/A of each metric, each with a 95% interval over the rounds."""
        if self.rounds < 3:
            raise RunError("compare: fewer than three rounds give no interval")
        loads = {"A": self.a, "B": self.b, "A'": self.a}
        rounds = [self._round(loads, number) for number in range(self.rounds)]
        effects = {metric: _effect(rounds, metric) for metric in METRICS}
        return {"rounds": rounds, "effects": effects, "order": list(ORDER)}

    def _round(self, loads: Mapping[str, Load], number: int) -> list[Json]:
        segments = []
        for place, arm in enumerate(ORDER):
            # The two halves of a round see the same two schedules, whichever arm they belong to
            seed = self.a.seed + 2 * number + (place >= len(ORDER) // 2)
            with execute(replace(loads[arm], seed=seed)) as run:
                result = summarise(run)
            if result["verdict"] == "invalid":
                because = "; ".join(result["invalid_because"])
                raise RunError(f"{arm}, round {number + 1}: {because}")
            latency = result["latency_ms"]["corrected"]
            segments.append({"arm": arm, "latency_ms": latency, "buckets": result["buckets"]})
            numbers = f"p50 {latency['p50']:.2f}  p99 {latency['p99']:.2f} ms"
            self.say(f"round {number + 1}  {arm:2}  {numbers}")
        return segments


def _effect(rounds: list[list[Json]], metric: str) -> Json:
    """Geometric mean ratios; an effect only where its interval leaves out 1 and what A′ shows."""
    logs = {
        arm: np.array(
            [
                np.mean([math.log(s["latency_ms"][metric]) for s in one if s["arm"] == arm])
                for one in rounds
            ]
        )
        for arm in ("A", "B", "A'")
    }
    effect, control = _interval(logs["B"] - logs["A"]), _interval(logs["A'"] - logs["A"])
    apart = effect["low"] > 1 or effect["high"] < 1
    noise = abs(math.log(control["ratio"]))
    return {
        "b_over_a": effect,
        "control": control,
        "shown": bool(apart and abs(math.log(effect["ratio"])) > noise),
    }


def _interval(differences: np.ndarray[Any, np.dtype[np.float64]]) -> Json:
    """Mean of the rounds' log ratios ± t · standard error, as ratios."""
    n = differences.size
    t = T_95[min(n - 1, len(T_95)) - 1]
    half = t * float(differences.std(ddof=1)) / math.sqrt(n)
    mean = float(differences.mean())
    return {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}


def sentences(effects: Mapping[str, Json]) -> list[str]:
    """An effect with its interval, or that none was shown; the control beside it."""
    lines = []
    for metric, effect in effects.items():
        control = f"A against itself {_written(effect['control'])}"
        if effect["shown"]:
            lines.append(f"{metric}: B takes {_written(effect['b_over_a'])} of A's time; {control}")
        else:
            lines.append(f"{metric}: no effect shown, {_written(effect['b_over_a'])}; {control}")
    return lines


def _written(ratio: Json) -> str:
    return f"{ratio['ratio']:.3f} ({ratio['low']:.3f} … {ratio['high']:.3f})"
