"""Compares two loads A and B by interleaved segments, with A against itself as the control.

Each round runs six segments, A B A′ A′ B A. All three arms lie, on average, at the middle of the
round, so that linear drift of the machine favours none. A′ is A again: its apparent difference from
A is the noise of the method.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loadtest.analysis.results import reasons, summarise
from loadtest.generator.runner import Load, RunError, execute

ORDER = ("A", "B", "A'", "A'", "B", "A")
METRICS = ("p50", "p90", "p99", "mean")
# Student's t, two-sided 95%, by degrees of freedom
T_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
Json = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A comparison of loads that differ in URL or settings, over ``rounds`` ≥ 3."""

    a: Load
    b: Load
    rounds: int = 4
    say: Callable[[str], None] = print

    def run(self) -> Json:
        """Measure B/A and A′/A of each metric, with 95% intervals over the rounds."""
        if self.rounds < 3:
            raise RunError("compare: at least three rounds are required")
        loads = {"A": self.a, "B": self.b, "A'": self.a}
        rounds = [self._round(loads, number) for number in range(self.rounds)]
        effects = {metric: _effect(rounds, metric) for metric in METRICS}
        return {"rounds": rounds, "effects": effects, "order": list(ORDER)}

    def _round(self, loads: Mapping[str, Load], number: int) -> list[Json]:
        segments = []
        for place, arm in enumerate(ORDER):
            # A schedule for each half of a round, the same for all arms
            seed = self.a.seed + 2 * number + (place >= len(ORDER) // 2)
            with execute(replace(loads[arm], seed=seed)) as run:
                result = summarise(run)
            if result["verdict"] == "invalid":
                because = "; ".join(result["invalid_because"])
                raise RunError(f"{arm}, round {number + 1}: {because}")
            latency = result["latency_ms"]["corrected"]
            if latency["p50"] is None:
                raise RunError(
                    f"{arm}, round {number + 1}: no request was answered rightly: {reasons(result)}"
                )
            kept = {name: result[name] for name in ("buckets", "cold_users")}
            segments.append({"arm": arm, "latency_ms": latency, **kept})
            numbers = f"p50 {latency['p50']:.2f}  p99 {latency['p99']:.2f} ms"
            missed = sum(result["buckets"].values()) - result["buckets"]["ok"]
            not_ok = f"  not ok {missed:,} of {result['requests']:,}" if missed else ""
            self.say(f"round {number + 1}  {arm:2}  {numbers}{not_ok}")
        return segments


def _effect(rounds: list[list[Json]], metric: str) -> Json:
    """Compute geometric mean ratios; an effect is shown if its interval excludes 1 and A′/A."""
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
    significant = effect["low"] > 1 or effect["high"] < 1
    noise = abs(math.log(control["ratio"]))
    return {
        "b_over_a": effect,
        "control": control,
        "shown": bool(significant and abs(math.log(effect["ratio"])) > noise),
    }


def _interval(differences: np.ndarray[Any, np.dtype[np.float64]]) -> Json:
    """Compute the mean of the rounds' log ratios ± t · standard error, as ratios."""
    n = differences.size
    t = T_95[min(n - 1, len(T_95)) - 1]
    half = t * float(differences.std(ddof=1)) / math.sqrt(n)
    mean = float(differences.mean())
    return {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}


def sentences(effects: Mapping[str, Json]) -> list[str]:
    """Describe each metric's effect, if shown, with its interval and the control's."""
    lines = []
    for metric, effect in effects.items():
        control = f"A against itself {_formatted(effect['control'])}"
        if effect["shown"]:
            lines.append(
                f"{metric}: B takes {_formatted(effect['b_over_a'])} of A's time; {control}"
            )
        else:
            lines.append(f"{metric}: no effect shown, {_formatted(effect['b_over_a'])}; {control}")
    return lines


def failures(rounds: list[list[Json]]) -> list[str]:
    """Warn of each arm's requests that ended otherwise than with a right answer: an arm that sheds
    or fails half of its requests has short times for the rest."""
    lines = []
    for arm in dict.fromkeys(ORDER):
        ends: Counter[str] = Counter()
        for segment in itertools.chain.from_iterable(rounds):
            if segment["arm"] == arm:
                ends.update(segment["buckets"])
        total, missed = ends.total(), ends.total() - ends.pop("ok", 0)
        if missed:
            how = ", ".join(
                f"{end.replace('_', ' ')} {count:,}" for end, count in ends.items() if count
            )
            lines.append(
                f"warning: {arm}: {missed:,} of {total:,} requests were not answered rightly "
                f"({how}); times are those of answers, right or wrong, and of time limits alone"
            )
    return lines


def _formatted(ratio: Json) -> str:
    return f"{ratio['ratio']:.3f} ({ratio['low']:.3f} … {ratio['high']:.3f})"
