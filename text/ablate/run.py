"""Runs claims: every arm with every seed, those missing alone, then the verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from text.ablate.claims import CLAIMS, Claim
from text.ablate.experiment import RESULTS, Experiment
from text.ablate.results import Result, Results
from text.ablate.verdict import Figures, Spread, Verdict
from text.encoder.fit import check_precision
from text.encoder.run import RunError


@dataclass(frozen=True)
class Outcome:
    """A claim with its results and the verdict."""

    claim: Claim
    results: Sequence[Result]
    verdict: Verdict

    @property
    def figures(self) -> Figures:
        """Return figures by arm and seed."""
        return _by_arm(self.results)

    @property
    def spreads(self) -> Mapping[str, Mapping[str, Spread]]:
        """Return mean and spread over seeds, by arm and figure."""
        return {
            arm: {
                name: Spread.of([own[name] for own in by_seed.values()])
                for name in next(iter(by_seed.values()))
            }
            for arm, by_seed in self.figures.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints of the claim."""
        conditions = [
            {
                "condition": each.name,
                "values": {str(seed): value for seed, value in each.values.items()},
                "held": each.held,
            }
            for each in self.verdict.conditions
        ]
        return {
            "claim": self.claim.name,
            "statement": self.claim.statement,
            "holds": self.verdict.holds,
            "verdict": self.verdict.text,
            "conditions": conditions,
            "results": [asdict(result) for result in self.results],
            "spreads": {
                arm: {name: asdict(spread) for name, spread in own.items()}
                for arm, own in self.spreads.items()
            },
        }


def run(experiment: Experiment, claims: Sequence[str], seeds: int) -> list[Outcome]:
    """Run claims by name. Raises RunError where a claim lacks what it needs."""
    check_precision(experiment.recipe.encoder)
    if len(experiment.corpus.languages) != 2:
        raise RunError(f"{experiment.corpus.folder}: not bilingual; build it with --languages A,B")
    if "bilingual" in claims and experiment.six is None:
        raise RunError("claim bilingual: needs a corpus of more languages; give --six, or --claims")
    chosen = [CLAIMS[name] for name in claims]
    for claim in chosen:  # what is refused is so before hours of work
        kept = Results(experiment.out / RESULTS, experiment.origin(claim.name))
        for arm, seed in claim.cells(seeds):
            kept.read(claim.name, arm, seed)
    return [_outcome(experiment, claim, seeds) for claim in chosen]


def _outcome(experiment: Experiment, claim: Claim, seeds: int) -> Outcome:
    """Measure what is missing of a claim, and judge it."""
    kept = Results(experiment.out / RESULTS, experiment.origin(claim.name))
    cells, results = list(claim.cells(seeds)), []
    for number, (arm, seed) in enumerate(cells):
        experiment.on_progress(f"{claim.name}: {arm}, seed {seed}", number, len(cells))
        result = kept.read(claim.name, arm, seed)
        if result is None:
            started = time.monotonic()
            figures = claim.measure(experiment, arm, seed)
            result = Result(claim.name, arm, seed, figures, time.monotonic() - started)
            kept.write(result)
        results.append(result)
    return Outcome(claim, results, claim.judge(_by_arm(results), experiment.corpus))


def _by_arm(results: Sequence[Result]) -> Figures:
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    for result in results:
        found.setdefault(result.arm, {})[result.seed] = result.figures
    return found
