"""Rows of the stages: equal shares of languages, hard negatives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.text.encoder.test_batches import tokens_of
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.encoder import data


@settings(deadline=None, max_examples=60)
@example(count=57, families=7, seed=91717)  # cosines that differ in their last bit alone
@given(count=st.integers(12, 90), families=st.integers(3, 30), seed=st.integers(0, 2**31))
def test_hard_negatives_are_the_nearest_of_the_label_but_the_very_nearest(
    count: int, families: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((2 * count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    family = np.arange(count) % families
    label = generator.integers(0, 3, count)
    queries, passages = np.arange(count), np.arange(count, 2 * count)
    mined = data.mine(vectors, queries, passages, family, label)
    scores = vectors[queries] @ vectors[passages].T
    wanted = min(data.SKIPPED + data.MINED, count - int(np.bincount(family).max()))
    skipped = min(data.SKIPPED, wanted // 4)
    for row in range(count):
        order = sorted(
            (other for other in range(count) if family[other] != family[row]),
            key=lambda other: (label[other] != label[row], -scores[row, other]),
        )
        found = mined[row] - count
        assert len(set(found)) == wanted - skipped
        assert not (family[found] == family[row]).any()
        near = order[skipped:wanted]
        assert ((label[found] == label[row]) == (label[near] == label[row])).all()
        # A product's last bit depends on where its operands lie in memory.
        assert scores[row, found] == pytest.approx(scores[row, near], abs=1e-6)


def test_the_tokenizer_is_trained_on_as_much_of_each_language(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [("en", n) for n in range(300)] + [("de", n) for n in range(40)]
    texts = [
        {"id": f"{lang}{n}", "lang": lang, "text": f"{lang} x{word} y{word} z{word}"}
        for lang, n in rows
        for word in [chr(97 + n % 26) + chr(97 + n // 26)]
    ]
    (folder / "a.train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in texts))
    build(tmp_path / "corpus", ["en", "de"], {}, [folder], Archives(tmp_path / "none"))
    corpus = Corpus.open(tmp_path / "corpus")
    chosen = data.sampled_texts(corpus, 3)
    characters = {
        lang: sum(len(text) for text in chosen if text.startswith(lang)) for lang in ("en", "de")
    }
    whole = sum(map(len, corpus.texts("de", "train")["text"].to_pylist()))
    assert characters["de"] == whole > 500
    assert corpus.texts("en", "train").num_rows == 300
    assert 0 <= characters["en"] - characters["de"] < 30  # at most one text more


def test_frequencies_have_as_much_of_each_language_and_no_special_tokens() -> None:
    tokens = tokens_of([4, 30, 12, 9])
    shares = data.frequencies(tokens, [np.asarray([0]), np.asarray([1, 2])], 120).numpy()
    assert shares.sum() == pytest.approx(1.0)
    assert shares[:5].sum() == 0
    own = np.bincount(tokens.of(0)[1:-1], minlength=120) / 2
    others = np.bincount(np.r_[tokens.of(1)[1:-1], tokens.of(2)[1:-1]], minlength=120)
    assert shares == pytest.approx(own / 2 + others / others.sum() / 2)
