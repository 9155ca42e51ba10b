"""The gate of another number format: both limits, each alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError
from tests.text.rewritten import rewrite
from text.corpus.corpus import Corpus
from text.export.build import build
from text.export.gate import LEAST_TEXTS, NEAREST, GateData, measure
from text.export.int8 import Int8
from text.runtime.manifest import LEAST_OVERLAP, MOST_RHO_LOSS, Gate
from text.tokenizer import TextTokenizer, Tokens

TEXTS, PAIRS, WIDTH = 300, 200, 16
Vectors = NDArray[np.float32]


def units(count: int, seed: int) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tokens(first: int, count: int) -> Tokens:
    """Texts of one token, the number of its vector."""
    ids = np.arange(first, first + count, dtype=np.int32)
    return Tokens(ids, ids, np.arange(count + 1, dtype=np.int64))


ALL = units(TEXTS + 2 * PAIRS, 0)
NOISE = units(TEXTS + 2 * PAIRS, 1)
FIRST, SECOND = ALL[TEXTS : TEXTS + PAIRS], ALL[TEXTS + PAIRS :]
DATA = GateData(
    "corpus",
    tokens(0, TEXTS),
    tokens(TEXTS, PAIRS),
    tokens(TEXTS + PAIRS, PAIRS),
    (FIRST * SECOND).sum(1),
)


def gate(of_texts: float = 0.0, of_pairs: float = 0.0, forced: bool = False) -> Gate:
    """Measure vectors with so much noise."""
    share = np.repeat([of_texts, of_pairs], [TEXTS, 2 * PAIRS])[:, None]
    noisy = ALL + share * NOISE
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    exact, quick = (x.astype(np.float32) for x in (ALL, noisy))
    return measure(DATA, lambda t: exact[t.ids], lambda t: quick[t.ids], [], forced)


def test_the_limits_are_those_that_the_documents_name() -> None:
    assert (MOST_RHO_LOSS, LEAST_OVERLAP, NEAREST) == (0.005, 0.95, 10)


def test_equal_vectors_pass() -> None:
    found = gate()
    assert (found.passed, found.overlap, found.rho_loss) == (True, 1.0, 0.0)


@pytest.mark.parametrize(("noise", "passes"), [(0.02, True), (0.06, False), (0.5, False)])
def test_the_nearest_texts_agree_by_so_much(noise: float, passes: bool) -> None:
    found = gate(of_texts=noise)
    assert found.rho_loss == 0
    assert (found.overlap >= 0.95) == found.passed == passes
    assert 0 < found.max_abs_error < noise


@pytest.mark.parametrize(("noise", "passes"), [(0.03, True), (0.15, False), (0.5, False)])
def test_the_correlation_is_lower_by_so_little(noise: float, passes: bool) -> None:
    found = gate(of_pairs=noise)
    assert found.overlap == 1
    assert found.rho_float32 == pytest.approx(1)
    assert (found.rho_loss <= 0.005) == found.passed == passes


def test_a_gate_that_is_forced_says_so_and_one_that_passes_does_not() -> None:
    assert gate(of_texts=0.5, forced=True).forced
    assert not gate(forced=True).forced


def test_pairs_of_one_grade_have_no_order_to_lose() -> None:
    exact, quick = (x.astype(np.float32) for x in (ALL, ALL + 0.01 * NOISE))
    data = replace(DATA, grades=np.full(PAIRS, 0.5))
    found = measure(data, lambda t: exact[t.ids], lambda t: quick[t.ids], [], False)
    assert (found.passed, found.pairs, found.rho, found.rho_float32) == (True, 0, None, None)


def test_cosines_that_are_all_equal_have_lost_the_order() -> None:
    exact, alike = ALL.astype(np.float32), np.full((len(ALL), WIDTH), 0.25, np.float32)
    found = measure(DATA, lambda t: exact[t.ids], lambda t: alike[t.ids], [], False)
    assert not found.passed
    assert found.rho == 0
    assert found.rho_loss == pytest.approx(1)


@pytest.mark.parametrize("texts", [0, 1, LEAST_TEXTS - 1])
def test_too_few_test_texts_are_no_gate(corpus: Corpus, tmp_path: Path, texts: int) -> None:
    """Of one text there is no nearest, and of ten the ten nearest are all."""
    folder = shutil.copytree(corpus.folder, tmp_path / "corpus")
    table = pq.read_table(folder / "texts.parquet")
    held = table.filter(pc.equal(table["split"], "test")).slice(0, texts)
    rewrite(folder, "texts", held)
    tokenizer = TextTokenizer.train(["a tree"] * 9, 261)
    with pytest.raises(BundleError, match=rf"corpus: {texts} test texts, and the gate .+ larger"):
        GateData.of(Corpus.open(folder), tokenizer, 64)


def test_a_corpus_without_training_texts_is_named(
    checkpoint: Path, corpus: Corpus, tmp_path: Path
) -> None:
    folder = shutil.copytree(corpus.folder, tmp_path / "corpus")
    table = pq.read_table(folder / "texts.parquet")
    rewrite(folder, "texts", table.filter(pc.equal(table["split"], "test")))
    with pytest.raises(BundleError, match=r"corpus: no training texts, .+ another corpus"):
        build(checkpoint, tmp_path / "out", version="v", int8=Int8(Corpus.open(folder)))
    assert not list((tmp_path / "out").iterdir())
