"""Judges contents of cold items by three conditions, each to hold with every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from text.ablate.results import Result
from text.cold.contents import OURS, Arm

OF_CEILING = 0.8  # least share of the possible, by that of the planted content
ABOVE_TF_IDF = 0.05  # least difference of shares of the possible
LANGUAGES_APART = 0.02  # most difference of AUCs


@dataclass(frozen=True, slots=True)
class Condition:
    """A figure with each seed and its bound."""

    arm: Arm
    name: str
    values: dict[int, float]  # seed -> figure
    least: float

    @property
    def holds(self) -> bool:
        return all(value >= self.least for value in self.values.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "name": self.name,
            "values": self.values,
            "least": self.least,
            "holds": self.holds,
        }


def conditions(results: Sequence[Result]) -> list[Condition]:
    """Return the conditions of the encoder's two contents; none unless all that they compare were
    measured."""
    if not {*OURS, "tf-idf", "planted"} <= {each.arm for each in results}:
        return []
    figures = {(each.arm, each.seed): each.figures for each in results}
    seeds = sorted({each.seed for each in results})
    found = []
    for arm in OURS:
        share = {seed: figures[arm, seed]["share_first"] for seed in seeds}
        ceiling = {seed: figures["planted", seed]["share_first"] for seed in seeds}
        peer = {seed: figures["tf-idf", seed]["share_first"] for seed in seeds}
        across = {
            seed: figures[arm, seed]["auc_second"] - figures[arm, seed]["auc_first"]
            for seed in seeds
        }
        of_ceiling = {seed: share[seed] / ceiling[seed] for seed in seeds}
        above = {seed: share[seed] - peer[seed] for seed in seeds}
        found += [
            Condition(arm, "share of the possible, by that of planted", of_ceiling, OF_CEILING),
            Condition(arm, "share of the possible, less that of tf-idf", above, ABOVE_TF_IDF),
            Condition(arm, "AUC in the second language, less the first", across, -LANGUAGES_APART),
        ]
    return found
