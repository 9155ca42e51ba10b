"""Components of tf-idf: those of a whole decomposition, of unit scale, for texts not seen."""

from __future__ import annotations

import numpy as np
import pytest

from text.cold.components import TfIdfComponents

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def texts(count: int, seed: int) -> list[str]:
    """Texts of one of three topics, whose words are apart."""
    random = np.random.default_rng(seed)
    topics = [WORDS[start::3] for start in range(3)]
    return [" ".join(random.choice(topics[n % 3], 12)) for n in range(count)]


def test_contents_have_mean_zero_and_a_mean_variance_of_one() -> None:
    own = texts(120, 0)
    content = TfIdfComponents.fit(own, 16).content(own)
    assert content.shape == (120, 16)
    assert np.abs(content.mean(0)).max() < 1e-4
    assert (content**2).mean() == pytest.approx(1, rel=1e-4)


def test_components_are_those_of_a_whole_decomposition() -> None:
    own = texts(120, 1)
    fitted = TfIdfComponents.fit(own, 8)
    content = fitted.content(own).astype(np.float64)
    weighted = fitted._weighted(own).astype(np.float64)
    left, values, _ = np.linalg.svd(weighted - weighted.mean(0), full_matrices=False)
    whole = left[:, :2] * values[:2]
    factor = np.linalg.norm(content[:, 0]) / np.linalg.norm(whole[:, 0])
    assert np.allclose(np.abs(content[:, :2]), np.abs(whole) * factor, atol=0.05)


def test_texts_of_a_topic_are_near_though_they_were_not_seen() -> None:
    fitted = TfIdfComponents.fit(texts(120, 2), 4)
    content = fitted.content(texts(60, 3))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    near = content @ content.T
    same = np.arange(60)[:, None] % 3 == np.arange(60) % 3
    assert near[same].min() > near[~same].max()


def test_texts_without_known_n_grams_have_the_same_content() -> None:
    fitted = TfIdfComponents.fit(texts(30, 2), 4)
    content = fitted.content(["", "xyz qqq"])
    assert np.isfinite(content).all()
    assert np.array_equal(content[0], content[1])


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 texts with .* 8 components are too many"):
        TfIdfComponents.fit(texts(8, 0), 8)
