"""Makes graded pairs of packages ("DebSTS"): similarity of their debtags, texts in each language.

The score is the IDF-weighted Jaccard similarity of two packages' tags, which people assigned. The
same pairs are written in every language, and across every two, with the same score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from text.corpus.entry import Split
from text.corpus.split import hash_of
from text.corpus.tables import Tables

SOURCE = "debtags"
PAIRS: dict[Split, int] = {"train": 30_000, "valid": 1_000, "test": 3_000}
STRATA = 10  # of the score: equal numbers of pairs, as far as there are
LEAST_TAGS = 3
MOST_PACKAGES = 3_000  # of a split, whose pairs are looked at


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagged package with a text in every language of the corpus."""

    name: str
    group: str
    split: Split
    tags: tuple[str, ...]
    texts: dict[str, str]


def write_pairs(tables: Tables, packages: Sequence[Tagged], languages: Sequence[str]) -> None:
    weights = idf(packages)
    for split, count in PAIRS.items():
        part = sorted(
            (p for p in packages if p.split == split), key=lambda p: hash_of(f"graded {p.name}")
        )[:MOST_PACKAGES]
        if len(part) > 1:
            _write(tables, part, weights, count, languages)


def _write(
    tables: Tables,
    packages: Sequence[Tagged],
    weights: dict[str, float],
    count: int,
    languages: Sequence[str],
) -> None:
    score = similarities([p.tags for p in packages], weights)
    families = np.unique([p.group for p in packages], return_inverse=True)[1]
    allowed = np.triu(families[:, None] != families, 1)
    sides = [(lang, lang) for lang in languages] + list(combinations(languages, 2))
    for a, b in stratified(score, allowed, count):
        first, second = packages[a], packages[b]
        for lang_a, lang_b in sides:
            tables.write(
                "graded",
                text_a=first.texts[lang_a],
                text_b=second.texts[lang_b],
                lang_a=lang_a,
                lang_b=lang_b,
                source=SOURCE,
                score=float(score[a, b]),
                group_a=first.group,
                group_b=second.group,
                split=first.split,
            )


def idf(packages: Sequence[Tagged]) -> dict[str, float]:
    """Return each tag's inverse document frequency, ln(packages / packages that have it)."""
    counts = Counter(tag for package in packages for tag in package.tags)
    return {tag: float(np.log(len(packages) / n)) for tag, n in counts.items()}


def similarities(tags: Sequence[Sequence[str]], weights: dict[str, float]) -> NDArray[np.float32]:
    """(N, N): weight of common tags by weight of all tags of two packages."""
    number = {tag: n for n, tag in enumerate(sorted(weights))}
    has = np.zeros((len(tags), len(weights)), np.float32)
    for row, own in enumerate(tags):
        has[row, [number[tag] for tag in own]] = 1
    weight = np.array([weights[tag] for tag in sorted(weights)], np.float32)
    common = (has * weight) @ has.T
    total = has @ weight
    either = np.maximum(total[:, None] + total - common, np.float32(1e-9))
    return np.minimum(common / either, 1).astype(np.float32, copy=False)  # 1, but for rounding


def stratified(
    score: NDArray[np.float32], allowed: NDArray[np.bool_], count: int
) -> list[tuple[int, int]]:
    """Draw pairs (a, b), as many of each tenth of the score, in random order. A tenth that has too
    few leaves its share to the others.
    """
    random = np.random.default_rng(len(score))
    rows, columns = np.nonzero(allowed)
    strata = np.minimum(score[rows, columns] * STRATA, STRATA - 1).astype(np.int8)
    members = [random.permutation(np.flatnonzero(strata == k)) for k in range(STRATA)]
    members.sort(key=len)
    chosen: list[NDArray[np.int64]] = []
    left = count
    for number, stratum in enumerate(members):
        chosen.append(stratum[: left // (STRATA - number)])
        left -= len(chosen[-1])
    order = random.permutation(np.concatenate(chosen))
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))
