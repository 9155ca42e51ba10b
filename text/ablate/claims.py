"""Defines the three claims: their arms, what is measured of each, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from text.ablate.experiment import FIRST, Experiment
from text.ablate.length import measured as measured_by_length
from text.ablate.verdict import Condition, Figures, Verdict, difference, ratio
from text.corpus.corpus import Corpus
from text.encoder import checkpoint
from text.encoder.run import RunError
from text.evaluate.tasks import Result
from text.tokenizer import TextTokenizer

TASKS = ["similarity", "retrieval"]
OVER_NONE, OVER_SQUARED, UNHARMED = 0.08, 0.02, 0.01
KEPT, LOST = 0.9, 0.5  # of the accuracy at the length trained on
TRAINED = 128  # tokens
WORDS_COUNTED = 2000  # texts of a language


@dataclass(frozen=True)
class Claim:
    """A claim; arms in ``once`` are measured with the first seed alone."""

    name: str
    statement: str
    arms: tuple[str, ...]
    measure: Callable[[Experiment, str, int], dict[str, float]]
    conditions: Callable[[Figures, Corpus], list[Condition]]
    once: tuple[str, ...] = ()

    def cells(self, seeds: int) -> Iterable[tuple[str, int]]:
        """Yield every (arm, seed), all arms of a seed before the next."""
        for seed in range(FIRST, FIRST + seeds):
            for arm in self.arms + (self.once if seed == FIRST else ()):
                yield arm, seed

    def judge(self, figures: Figures, corpus: Corpus) -> Verdict:
        """Return the verdict."""
        return Verdict(self.name, self.statement, self.conditions(figures, corpus))


def _similarity(experiment: Experiment, arm: str, seed: int) -> dict[str, float]:
    folder = experiment.stage_three(arm, seed)
    results = experiment.evaluated(folder, TASKS, experiment.items())
    return _figures(results, experiment.corpus)


def _similarity_conditions(figures: Figures, corpus: Corpus) -> list[Condition]:
    conditions = []
    for langs in _languages(corpus):
        name = f"ρ {langs}"
        conditions += [
            difference(figures, name, "pearson", "none", "≥", OVER_NONE),
            difference(figures, name, "pearson", "squared", "≥", OVER_SQUARED),
        ]
    unharmed = difference(figures, "nDCG@10 all", "pearson", "none", "≥", -UNHARMED)
    return [*conditions, unharmed]


def _bilingual(experiment: Experiment, arm: str, seed: int) -> dict[str, float]:
    if experiment.six is None:
        raise RunError("claim bilingual: needs the corpus of more languages; give --six")
    corpus = experiment.six if arm == "six" else experiment.corpus
    folder = experiment.stage_two(corpus, seed)
    tokenizer = checkpoint.load(folder).tokenizer
    results = experiment.evaluated(folder, TASKS, experiment.items())
    return _figures(results, experiment.corpus) | {
        f"tokens a word {lang}": tokens_a_word(tokenizer, experiment.corpus, lang)
        for lang in experiment.corpus.languages
    }


def _bilingual_conditions(figures: Figures, corpus: Corpus) -> list[Condition]:
    first, other = corpus.languages[:2]
    names = [
        f"{name} {langs}" for langs in (other, f"{first}-{other}") for name in ("ρ", "nDCG@10")
    ]
    return [difference(figures, name, "bilingual", "six", ">", 0) for name in names] + [
        difference(figures, f"tokens a word {lang}", "bilingual", "six", "<", 0)
        for lang in (first, other)
    ]


def _length_conditions(figures: Figures, corpus: Corpus) -> list[Condition]:
    longest = max(int(name.rpartition(" ")[2]) for name in figures["alibi"][FIRST])
    short, long = f"accuracy {TRAINED}", f"accuracy {longest}"
    return [
        ratio(figures, "alibi", long, short, "≥", KEPT),
        ratio(figures, "learnt", long, short, "<", LOST),
    ]


def tokens_a_word(tokenizer: TextTokenizer, corpus: Corpus, lang: str) -> float:
    """Return the tokens that a word of held-out texts takes, without special tokens."""
    texts = corpus.texts(lang, "test").slice(0, WORDS_COUNTED)
    tokens = tokenizer.encode(texts["text"].to_pylist(), 1 << 20)
    return float((tokens.words >= 0).sum() / np.sum(texts["words"].to_numpy()))


def _languages(corpus: Corpus) -> list[str]:
    first, other = corpus.languages[:2]
    return [first, other, f"{first}-{other}"]


def _figures(results: Sequence[Result], corpus: Corpus) -> dict[str, float]:
    """Return ρ by languages; nDCG@10 by languages, both directions together, and of all tasks."""
    rho = {result.languages: result.value for result in results if result.task == "similarity"}
    ndcg: dict[str, list[float]] = {}
    for result in results:
        if result.metric == "ndcg@10":
            both = sorted(result.languages.split("-"), key=corpus.languages.index)
            ndcg.setdefault("-".join(both), []).append(result.value)
    for langs in _languages(corpus):
        if langs not in rho or langs not in ndcg:
            raise RunError(f"{corpus.folder}: no graded pairs or queries in {langs} to test with")
    return (
        {f"ρ {langs}": rho[langs] for langs in _languages(corpus)}
        | {f"nDCG@10 {langs}": fmean(ndcg[langs]) for langs in _languages(corpus)}
        | {"nDCG@10 all": fmean(value for own in ndcg.values() for value in own)}
    )


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "similarity",
            "Pearson's correlation as the similarity loss of stage III raises ρ over the squared "
            "error and over retrieval alone, and retrieval is unharmed.",
            ("pearson", "squared", "none"),
            _similarity,
            _similarity_conditions,
        ),
        Claim(
            "bilingual",
            "A bilingual encoder is better in its second language and across its two than one of "
            "six languages with the same parameters, vocabulary and steps.",
            ("bilingual", "six"),
            _bilingual,
            _bilingual_conditions,
        ),
        Claim(
            "length",
            "With ALiBi, an encoder trained on short texts predicts masked words of long ones as "
            "well; with learnt positions it does not.",
            ("alibi", "learnt"),
            measured_by_length,
            _length_conditions,
            once=("planted",),
        ),
    )
}
