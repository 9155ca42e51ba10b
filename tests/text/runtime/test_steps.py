"""Encoding in steps gives what encoding in one call gives, in any order of the steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.text import small
from text.runtime.cache import VectorCache
from text.runtime.encoder import TextEncoder
from text.runtime.errors import TextError, TextTooLong
from text.runtime.steps import PART_TEXTS, EncodingSteps

TEXTS = [" ".join(small.WORDS[: 1 + i % 9]) for i in range(3 * PART_TEXTS)]


def encoded(encoder: TextEncoder, texts: object, truncate: bool = False) -> EncodingSteps:
    work = EncodingSteps(encoder, texts, truncate)  # type: ignore[arg-type]
    for part in reversed(range(len(work.parts))):
        work.read(part)
    for run in reversed(range(len(work.runs))):
        work.run(run)
    return work


def test_steps_in_any_order_give_the_vectors_of_one_call(bundle: Path) -> None:
    encoder = TextEncoder.open(bundle)
    work, once = encoded(encoder, TEXTS), encoder.encode(TEXTS)
    assert len(work.parts) == 3
    assert len(work.runs) > 3
    assert sum(run.size for run in work.runs) == work.answer.tokens.sum()
    assert np.abs(work.answer.vectors - once.vectors).max() <= 2e-6
    assert (work.answer.tokens == once.tokens).all()


def test_long_texts_have_runs_of_their_own(bundle: Path) -> None:
    encoder = TextEncoder.open(bundle)
    encoder._graph = replace(encoder.graphs, most_packed=20)
    texts = ["tree", "das Haus " * 30, "house"]
    work = encoded(encoder, texts)
    assert [run.pack is None for run in work.runs] == [True, False]
    assert list(work.answer.certificates) == [1]
    assert np.abs(work.answer.vectors - encoder.encode(texts).vectors).max() <= 2e-6


def test_token_ids_give_the_vector_of_their_text_with_or_without_special_tokens(
    bundle: Path,
) -> None:
    encoder = TextEncoder.open(bundle)
    ids = encoder.tokenizer.encode(["the tree"], 50).ids
    work = encoded(encoder, [ids, ids[1:-1]])
    assert work.answer.tokens.tolist() == 2 * [len(ids)]
    assert np.abs(work.answer.vectors - encoder.encode(["the tree"]).vectors).max() <= 2e-6


def test_faults_name_the_place_in_the_whole_list(bundle: Path) -> None:
    encoder = TextEncoder.open(bundle)
    for texts, kind in (([*TEXTS, ""], TextError), ([*TEXTS, "tree " * 400], TextTooLong)):
        with pytest.raises(kind) as error:
            encoded(encoder, texts)
        assert error.value.index == len(TEXTS)
    ids = np.zeros(small.LONGEST - 1, np.int32)
    with pytest.raises(TextTooLong) as error:
        encoded(encoder, [ids[:1], ids])
    assert (error.value.index, error.value.tokens) == (1, small.LONGEST + 1)
    cut = encoded(encoder, [ids[:1], ids], truncate=True).answer
    assert cut.truncated.tolist() == [False, True]


def test_cached_texts_take_no_run(bundle: Path) -> None:
    encoder = TextEncoder.open(bundle, cache=VectorCache(1 << 20))
    first = encoded(encoder, TEXTS[:3])
    again = encoded(encoder, [*TEXTS[:3], "niño"])
    assert (first.cached, again.cached) == (0, 3)
    assert again.runs[0].places == [3]
    assert (again.answer.vectors[:3] == first.answer.vectors).all()
    assert (again.answer.tokens[:3] == first.answer.tokens).all()
