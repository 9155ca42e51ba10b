from __future__ import annotations

import math

import numpy as np
import pytest

from text.corpus.graded import Tagged, idf, similarities, stratified


def package(name: str, *tags: str) -> Tagged:
    return Tagged(name, name, "train", tags, {})


def test_similarity_is_the_weight_of_common_tags_over_that_of_all() -> None:
    packages = [
        package("a", "x", "y"),
        package("b", "y", "z"),
        package("c", "y"),
        package("d", "x"),
    ]
    weights = idf(packages)
    assert weights == pytest.approx({"x": math.log(2), "y": math.log(4 / 3), "z": math.log(4)})
    score = similarities([p.tags for p in packages], weights)
    common, either = weights["y"], sum(weights.values())
    assert score[0, 1] == score[1, 0] == pytest.approx(common / either)
    assert score[0, 3] == pytest.approx(weights["x"] / (weights["x"] + weights["y"]))
    assert score[2, 3] == 0
    assert np.allclose(np.diag(score), 1)
    assert score.max() <= 1


def test_a_tag_that_all_have_makes_nothing_similar() -> None:
    packages = [package("a", "x"), package("b", "x")]
    assert not similarities([p.tags for p in packages], idf(packages)).any()


def test_strata_are_equally_many_where_there_are_enough() -> None:
    random = np.random.default_rng(0)
    score = (random.random((200, 200)) ** 4).astype(np.float32)  # most are near 0
    allowed = np.triu(np.ones((200, 200), bool), 1)
    pairs = stratified(score, allowed, 1000)
    assert len(set(pairs)) == 1000
    assert all(a < b for a, b in pairs)
    counts = np.histogram([score[a, b] for a, b in pairs], 10, (0, 1))[0]
    assert counts.min() >= 95
    assert counts.max() <= 105


def test_a_stratum_with_too_few_leaves_its_share_to_others() -> None:
    score = np.zeros((100, 100), np.float32)
    score[0, 1] = 0.95
    pairs = stratified(score, np.triu(np.ones((100, 100), bool), 1), 500)
    assert len(pairs) == 500
    assert (0, 1) in pairs
