"""Metrics against their definitions written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.evaluate import metrics
from text.evaluate.tf_idf import TfIdf


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_spearman_is_the_correlation_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.asarray(side, float) for side in zip(*pairs, strict=True))

    def slow(values: np.ndarray) -> np.ndarray:
        return np.asarray([np.mean(np.flatnonzero(np.sort(values) == v)) for v in values])

    assert (metrics.ranks(a) == slow(a)).all()
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert metrics.spearman(a, b) == pytest.approx(np.corrcoef(slow(a), slow(b))[0, 1])
    else:
        assert math.isnan(metrics.spearman(a, b))


def test_ndcg_and_accuracy_of_a_known_ranking() -> None:
    scores = np.asarray([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]])
    relevant = [np.asarray([1, 2]), np.asarray([3])]
    first = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert metrics.ndcg(scores, relevant) == pytest.approx((first + 1) / 2)
    assert metrics.ndcg(scores, relevant, depth=1) == pytest.approx(0.5)
    assert metrics.accuracy_at_1(scores, relevant) == 0.5


def test_v_measure_of_known_clusters() -> None:
    labels = ["a", "a", "b", "b"]
    assert metrics.v_measure(labels, np.asarray([1, 1, 0, 0])) == pytest.approx(1.0)
    assert metrics.v_measure(labels, np.asarray([0, 1, 0, 1])) == pytest.approx(0.0)
    assert metrics.v_measure(labels, np.asarray([0, 0, 0, 0])) == pytest.approx(0.0)
    # each point its own cluster: homogeneity 1, completeness 1/2
    assert metrics.v_measure(labels, np.asarray([0, 1, 2, 3])) == pytest.approx(2 / 3)


def test_k_means_finds_clusters_that_are_apart() -> None:
    generator = np.random.default_rng(2)
    centres = np.eye(5, 16, dtype=np.float32)
    labels = generator.integers(0, 5, 300)
    vectors = centres[labels] + generator.normal(0, 0.05, (300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = metrics.k_means(vectors.astype(np.float32), 5, 1)
    assert metrics.v_measure([str(label) for label in labels], found) == pytest.approx(1.0)


def test_tf_idf_prefers_the_text_with_rare_parts_in_common() -> None:
    peer = TfIdf()
    documents = ["a tool for images", "a tool for sound", "a tool for databases"]
    scores = peer.similarity(["image viewer", "the sound of a tool"], documents)
    assert scores.argmax(1).tolist() == [0, 1]
    assert peer.pairwise(documents, documents) == pytest.approx([1.0] * 3)
    pairs = peer.pairwise(["image viewer"], ["a tool for images"])
    assert 0 < pairs[0] < 1
