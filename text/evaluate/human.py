"""Compares similarities with people's judgements, from files that the package gensim ships.

English alone: WordSim-353 (Finkelstein et al. 2002) and SimLex-999 (Hill et al. 2015), pairs of
words, and Lee, Pincombe & Welsh 2005, all pairs of 50 newspaper texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from text.corpus.errors import CorpusError
from text.evaluate.encoders import Candidate
from text.evaluate.metrics import spearman
from text.evaluate.tasks import Result

WORDS = {"wordsim-353": "wordsim353.tsv", "simlex-999": "simlex999.txt"}
TEXTS, JUDGED = "lee.cor", "similarities0-1.txt"

Pair = tuple[str, str, float]


def evaluate(candidate: Candidate, sets: Mapping[str, Sequence[Pair]]) -> list[Result]:
    """Return Spearman's ρ for each set of judged pairs."""
    results = []
    for task, pairs in sets.items():
        first, second, scores = zip(*pairs, strict=True)
        value = spearman(candidate.pairwise(first, second), np.asarray(scores))
        results.append(Result(candidate.name, task, "en", "spearman", value, len(pairs)))
    return results


def read(folder: Path) -> dict[str, list[Pair]]:
    """Read the judged pairs of each set from the folder ``gensim/test/test_data``.

    Raises CorpusError where a file is missing or broken.
    """
    return {task: list(_words(folder / name)) for task, name in WORDS.items()} | {
        "lee": list(_texts(folder))
    }


def _words(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.startswith("#"):
            try:
                first, second, score = line.split("\t")
                yield first, second, float(score)
            except ValueError:
                raise CorpusError(f"{path}, line {number}: not WORD, WORD, SCORE") from None


def _texts(folder: Path) -> Iterator[Pair]:
    texts = _lines(folder / TEXTS)
    path = folder / JUDGED
    try:
        judged = np.loadtxt(_lines(path), ndmin=2)
    except ValueError as error:
        raise CorpusError(f"{path}: {error}") from error
    if judged.shape != (len(texts), len(texts)):
        raise CorpusError(f"{path}: {judged.shape} numbers for {len(texts)} texts of {TEXTS}")
    for a, b in combinations(range(len(texts)), 2):  # the lower half is zeros
        yield texts[a], texts[b], float(judged[a, b])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("latin-1").rstrip("\n").split("\n")
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}; gensim/test/test_data has it") from error
