"""Verdicts on figures: what holds and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from text.ablate.claims import CLAIMS
from text.ablate.verdict import Figures, Spread, Verdict
from text.corpus.corpus import Corpus

ENDE = Corpus(Path("ende"), {"languages": ["en", "de"]})
LANGUAGES = ("en", "de", "en-de")
SEEDS = (1, 2, 3)


def judged(claim: str, figures: dict[str, dict[str, float]]) -> Verdict:
    """The verdict where every seed has the same figures."""
    return CLAIMS[claim].judge(
        {arm: dict.fromkeys(SEEDS, own) for arm, own in figures.items()}, ENDE
    )


def similarity(pearson: float, squared: float, none: float, ndcg: float) -> Verdict:
    rho = {"pearson": pearson, "squared": squared, "none": none}
    found = {arm: {f"ρ {langs}": value for langs in LANGUAGES} for arm, value in rho.items()}
    for arm, own in found.items():
        own["nDCG@10 all"] = ndcg if arm == "pearson" else 0.5
    return judged("similarity", found)


@pytest.mark.parametrize(
    ("rho", "ndcg", "failed"),
    [
        ((0.57, 0.53, 0.46), 0.491, ""),
        ((0.57, 0.53, 0.50), 0.5, "ρ de: pearson − none ≥ 0.08 (in 0 of 3 seeds)"),
        ((0.57, 0.56, 0.46), 0.5, "ρ en-de: pearson − squared ≥ 0.02 (in 0 of 3 seeds)"),
        ((0.57, 0.53, 0.46), 0.48, "nDCG@10 all: pearson − none ≥ -0.01 (in 0 of 3 seeds)"),
    ],
)
def test_similarity_holds_by_the_margins_and_unharmed_retrieval(
    rho: tuple[float, float, float], ndcg: float, failed: str
) -> None:
    verdict = similarity(*rho, ndcg)
    assert verdict.holds == (not failed)
    assert verdict.text.startswith("does not hold: not " if failed else "holds in 3 of 3 seeds")
    assert failed in verdict.text


def bilingual(seeds: list[float], tokens: float = 1.5) -> Verdict:
    """Figures of the bilingual arm by seed; the other arm has .5 and 2 tokens a word."""
    names = [f"{name} {langs}" for name in ("ρ", "nDCG@10") for langs in LANGUAGES]
    words = ["tokens a word en", "tokens a word de"]
    figures: Figures = {
        "bilingual": {
            seed: dict.fromkeys(names, value) | dict.fromkeys(words, tokens)
            for seed, value in zip(SEEDS, seeds, strict=True)
        },
        "six": {seed: dict.fromkeys(names, 0.5) | dict.fromkeys(words, 2.0) for seed in SEEDS},
    }
    return CLAIMS["bilingual"].judge(figures, ENDE)


def test_bilingual_holds_only_if_it_is_better_with_every_seed() -> None:
    assert bilingual([0.51, 0.52, 0.53]).holds
    two = bilingual([0.51, 0.5, 0.53])
    assert not two.holds
    assert "nDCG@10 en-de: bilingual − six > 0 (in 2 of 3 seeds)" in two.text
    assert "tokens a word" not in two.text
    assert not bilingual([0.51, 0.52, 0.53], tokens=2.0).holds
    assert not bilingual([0.51, float("nan"), 0.53]).holds


@pytest.mark.parametrize(
    ("alibi", "learnt", "holds"), [(0.19, 0.09, True), (0.17, 0.09, False), (0.2, 0.1, False)]
)
def test_length_holds_if_alibi_keeps_its_accuracy_and_learnt_positions_lose_it(
    alibi: float, learnt: float, holds: bool
) -> None:
    figures = {
        "alibi": {"accuracy 128": 0.2, "accuracy 8192": alibi},
        "learnt": {"accuracy 128": 0.2, "accuracy 8192": learnt},
    }
    assert judged("length", figures).holds == holds


def test_spread_is_mean_deviation_least_and_most() -> None:
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, pytest.approx((2 / 3) ** 0.5), 1.0, 3.0)
