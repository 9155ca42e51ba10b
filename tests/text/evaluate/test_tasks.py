"""Tasks on the tiny corpus, with candidates whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from text.corpus.corpus import Corpus
from text.evaluate.metrics import spearman
from text.evaluate.report import markdown
from text.evaluate.tasks import Result, evaluate

Vectors = NDArray[np.float32]


class Asked:
    """Keeps what it is asked; the first document is the best one of all but the query's own."""

    name = "asked"

    def __init__(self, labels: dict[str, str] | None = None) -> None:
        self.asked: list[tuple[list[str], list[str]]] = []
        self._labels = labels or {}

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> Vectors:
        self.asked.append((list(queries), list(documents)))
        scores = np.zeros((len(queries), len(documents)), np.float32)
        scores[0] = 1.5
        scores[np.arange(len(queries)), np.arange(len(queries))] = 1
        scores[0, 0] = 2
        return scores

    def pairwise(self, first: Sequence[str], second: Sequence[str]) -> Vectors:
        self.asked.append((list(first), list(second)))
        return np.asarray(
            [len(a) - 2 * len(b) for a, b in zip(first, second, strict=True)], np.float32
        )

    def vectors(self, texts: Sequence[str]) -> Vectors:
        numbers = {label: n for n, label in enumerate(sorted(set(self._labels.values())))}
        return np.eye(len(numbers), dtype=np.float32)[[numbers[self._labels[t]] for t in texts]]


def by_languages(results: list[Result]) -> dict[tuple[str, str], Result]:
    return {(result.languages, result.metric): result for result in results}


def test_similarity_is_spearman_on_the_pairs_of_the_test_split(corpus: Corpus) -> None:
    found = by_languages(evaluate(Asked(), corpus, ["similarity"]))
    for langs, (a, b) in {"en": ("en", "en"), "de": ("de", "de"), "en-de": ("en", "de")}.items():
        own = corpus.graded(a, b, "test")
        sides = (own[side].to_pylist() for side in ("text_a", "text_b"))
        expected = spearman(Asked().pairwise(*sides), own["score"].to_numpy())
        result = found[langs, "spearman"]
        assert (result.value, result.items) == (pytest.approx(expected), len(own))


def test_bitext_is_asked_in_both_directions(corpus: Corpus) -> None:
    candidate = Asked()
    found = by_languages(evaluate(candidate, corpus, ["bitext"]))
    ((first, second),) = candidate.asked
    pairs = corpus.pairs("en", "de", "test", "translation").to_pylist()
    known = {(pair["text_a"], pair["text_b"]): pair["group"] for pair in pairs}
    assert len({known[pair] for pair in zip(first, second, strict=True)}) == len(first) > 5
    assert found["en-de", "accuracy@1"].value == 1
    assert found["de-en", "accuracy@1"].value == pytest.approx(1 / len(first))
    assert found["en-de", "accuracy@1"].pool == len(first)


def test_retrieval_asks_the_queries_of_the_test_split_within_and_across(corpus: Corpus) -> None:
    candidate = Asked()
    results = evaluate(candidate, corpus, ["retrieval"])
    assert not [result.task for result in results if result.task.startswith("planted")]
    langs = [r.languages for r in results if (r.task, r.metric) == ("questions", "ndcg@10")]
    assert langs == ["en", "en-de", "de-en", "de"]
    for (lang, there), (queries, documents) in zip(
        (("en", "en"), ("en", "de"), ("de", "en"), ("de", "de")), candidate.asked[:4], strict=True
    ):
        expected = corpus.retrieval("questions", lang, there, "test")
        assert queries == expected.queries["text"].to_pylist()
        assert documents == expected.documents["text"].to_pylist()
        other = corpus.retrieval("questions", lang, there, "train").queries["text"].to_pylist()
        assert not set(queries) & set(other)


def test_lengths_are_the_planted_tasks_alone(corpus: Corpus) -> None:
    results = evaluate(Asked(), corpus, ["lengths"])
    tasks = {result.task for result in results}
    assert tasks
    assert tasks == {task for task in corpus.tasks() if task.startswith("planted-")}
    assert {result.languages for result in results} == {"en", "de"}


def test_clusters_of_the_labels_have_v_measure_1(corpus: Corpus) -> None:
    rows = corpus.labels(split="test").to_pylist()
    candidate = Asked({row["text"]: row["label"] for row in rows})
    results = evaluate(candidate, corpus, ["clustering"])
    assert [(result.task, result.languages) for result in results] == [
        ("label", "de"),
        ("label", "en"),
    ]
    assert [result.value for result in results] == pytest.approx([1.0, 1.0])


def test_a_correlation_with_equal_scores_is_called_undefined() -> None:
    rows = [("same", math.nan), ("other", 0.25)]
    results = [Result(name, "similarity", "en", "spearman", value, 9) for name, value in rows]
    for ordered in (results, results[::-1]):
        (row,) = (line for line in markdown(ordered).splitlines() if "spearman" in line)
        assert "nan" not in row
        assert "undefined" in row
        assert "**0.250**" in row
