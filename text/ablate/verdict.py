"""Judges a claim: conditions that hold with a seed or do not, and a verdict over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

Figures = Mapping[str, Mapping[int, Mapping[str, float]]]  # arm → seed → name → value


@dataclass(frozen=True)
class Condition:
    """One condition, such as ``ρ en: pearson − none``, its bound, and the values by seed."""

    text: str
    sign: Literal["≥", ">", "<"]
    bound: float
    values: Mapping[int, float]

    @property
    def name(self) -> str:
        """Return it with its bound."""
        return f"{self.text} {self.sign} {self.bound:g}"

    def holds(self, seed: int) -> bool:
        """Tell whether it holds with a seed; NaN does not."""
        value = self.values[seed]
        if self.sign == "<":
            return value < self.bound
        return value >= self.bound if self.sign == "≥" else value > self.bound

    @property
    def held(self) -> int:
        """Count the seeds with which it holds."""
        return sum(self.holds(seed) for seed in self.values)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim: it holds if every condition does with every seed."""

    claim: str
    statement: str
    conditions: Sequence[Condition]

    @property
    def holds(self) -> bool:
        return all(each.held == len(each.values) for each in self.conditions)

    @property
    def text(self) -> str:
        """Return one line: the verdict, and the conditions that fail."""
        seeds = len(self.conditions[0].values)
        failed = [
            f"{each.name} (in {each.held} of {seeds} seeds)"
            for each in self.conditions
            if each.held < seeds
        ]
        if not failed:
            return f"holds in {seeds} of {seeds} seeds"
        return f"does not hold: not {'; '.join(failed)}"


def difference(
    figures: Figures, name: str, arm: str, other: str, sign: Literal["≥", ">", "<"], bound: float
) -> Condition:
    """Return the condition on a figure of an arm less that of another, seed by seed."""
    values = {seed: own[name] - figures[other][seed][name] for seed, own in figures[arm].items()}
    return Condition(f"{name}: {arm} − {other}", sign, bound, values)


def ratio(
    figures: Figures, arm: str, name: str, to: str, sign: Literal["≥", ">", "<"], bound: float
) -> Condition:
    """Return the condition on one figure of an arm by another of its own, seed by seed."""
    values = {
        seed: own[name] / own[to] if own[to] else float("nan") for seed, own in figures[arm].items()
    }
    return Condition(f"{arm}: {name} / {to}", sign, bound, values)


@dataclass(frozen=True)
class Spread:
    """A figure over seeds."""

    mean: float
    deviation: float  # of the seeds, as a population
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise."""
        return cls(fmean(values), pstdev(values), min(values), max(values))
