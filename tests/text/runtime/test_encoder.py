"""Texts in, unit vectors out: exact in any company, or an error that names the text."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.small import LONGEST, WORDS
from text.encoder.checkpoint import load
from text.export.folded import FoldedEncoder
from text.export.golden import exact
from text.export.packed import packed
from text.export.shared_weights import save
from text.runtime.bundle import EncoderBundle
from text.runtime.cache import VectorCache
from text.runtime.encoder import TextEncoder
from text.runtime.errors import TextError, TextTooLong
from text.runtime.manifest import WEIGHTS

TOLERANCE = 2e-6
ODD = ["\x00", " ", "\u200b\u200b", "e\u0301", "漢字", "🙂", "a\r\nb", "<s> </s> <pad> <mask>"]


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> TextEncoder:
    return TextEncoder.open(bundle)


def some_texts(count: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(1, 60))) for _ in range(count)]


def test_vectors_are_those_of_pytorch_in_float64(encoder: TextEncoder, checkpoint: Path) -> None:
    texts = [*some_texts(30), *ODD]
    encoded = encoder.encode(texts)
    loaded = load(checkpoint)
    tokens = loaded.tokenizer.encode(texts, LONGEST)
    assert np.abs(encoded.vectors - exact(loaded.network, tokens)).max() <= TOLERANCE
    assert encoded.tokens.tolist() == tokens.lengths.tolist()
    assert not encoded.truncated.any()
    assert encoded.vectors.dtype == np.float32


@settings(max_examples=8, deadline=None)
@given(company=st.lists(st.text(min_size=1, max_size=60), max_size=12), place=st.integers(0, 12))
def test_a_vector_does_not_depend_on_the_company(
    encoder: TextEncoder, company: list[str], place: int
) -> None:
    text = "the tree under the house"
    texts = [*company[:place], text, *company[place:]]
    beside = encoder.encode(texts).vectors[min(place, len(company))]
    assert np.abs(beside - encoder.encode([text]).vectors[0]).max() <= TOLERANCE


def test_a_longer_text_is_refused_by_name_and_token_count(encoder: TextEncoder) -> None:
    with pytest.raises(TextTooLong, match=r"text 1 \('ZZZ.+: 803 tokens, at most 300") as error:
        encoder.encode(["tree", "Z" * 800])
    assert (error.value.index, error.value.tokens) == (1, 803)


def test_a_longer_text_is_cut_if_asked_and_said(encoder: TextEncoder) -> None:
    encoded = encoder.encode(["tree", "Z" * 800], truncate=True)
    assert encoded.truncated.tolist() == [False, True]
    assert encoded.tokens[1] == LONGEST
    whole = encoder.encode(["Z" * (LONGEST - 3)])
    assert not whole.truncated[0]
    assert np.abs(encoded.vectors[1] - whole.vectors[0]).max() <= TOLERANCE


def test_the_tokens_of_a_very_long_text_are_not_counted_to_the_end(encoder: TextEncoder) -> None:
    with pytest.raises(TextTooLong, match="more than 4,800 tokens"):
        encoder.encode(["Z" * 1_000_000])


def test_a_text_of_no_tokens_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(TextError, match=r"text 1 \(''\): no tokens") as error:
        encoder.encode(["tree", "", "tree"])
    assert error.value.index == 1


def test_a_lone_surrogate_is_refused_by_name(encoder: TextEncoder) -> None:
    with pytest.raises(TextError, match=r"text 1 .+lone surrogate at character 3"):
        encoder.encode(["tree", "abc\ud800"])


def test_no_texts_have_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]).vectors.shape == (0, encoder.width)


def test_not_a_number_is_an_error_that_names_the_text(
    bundle: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Also where it spoils the other texts of its row."""
    loaded = load(checkpoint)
    odd = loaded.tokenizer.encode(["\x02"], 9).ids[-2]
    folded = FoldedEncoder.of(loaded.network)
    folded.tokens[odd] = np.nan
    copy = Path(shutil.copytree(bundle, tmp_path / bundle.name))
    save([packed(folded)], copy, WEIGHTS)
    encoder = TextEncoder(EncoderBundle(copy, EncoderBundle.open(bundle).manifest))
    with pytest.raises(TextError, match=r"text 2 .+x02.+: its vector is not finite") as error:
        encoder.encode(["tree", "house", "a\x02b", "und"])
    assert error.value.index == 2
    assert np.isfinite(encoder.encode(["tree", "house", "und"]).vectors).all()


def test_cached_vectors_are_given_without_the_graph(bundle: Path) -> None:
    cache = VectorCache(1 << 20)
    encoder = TextEncoder.open(bundle, cache=cache)
    first = encoder.encode(["tree", "das Haus"])
    del encoder._graph
    again = encoder.encode(["das Haus", "tree"])
    assert (again.vectors == first.vectors[::-1]).all()
    assert again.tokens.tolist() == first.tokens[::-1].tolist()


def test_a_cut_text_in_the_cache_is_still_refused_where_not_asked(bundle: Path) -> None:
    encoder = TextEncoder.open(bundle, cache=VectorCache(1 << 20))
    cut = encoder.encode(["Z" * 800], truncate=True)
    assert encoder.encode(["Z" * 800], truncate=True).truncated[0]
    with pytest.raises(TextTooLong):
        encoder.encode(["Z" * 800])
    assert cut.truncated[0]


def test_another_encoders_vectors_are_not_taken_from_the_cache(
    bundle: Path, tmp_path: Path
) -> None:
    from tests.text import small
    from text.export.build import build

    other = build(small.checkpoint(tmp_path / "c", "code"), tmp_path, version="v2", longest=40)
    assert other.digest != EncoderBundle.open(bundle).digest
    cache = VectorCache(1 << 20)
    first = TextEncoder.open(bundle, cache=cache).encode(["tree"]).vectors
    assert np.abs(TextEncoder(other, cache=cache).encode(["tree"]).vectors - first).max() > 0.01


def test_a_text_cut_elsewhere_by_a_bundle_of_equal_weights_is_not_taken_from_the_cache(
    bundle: Path,
) -> None:
    opened, cache = EncoderBundle.open(bundle), VectorCache(1 << 20)
    lengths = opened.manifest.lengths.model_copy(update={"longest": 20})
    shorter = replace(opened, manifest=opened.manifest.model_copy(update={"lengths": lengths}))
    assert shorter.digest == opened.digest
    text = "Z" * 800
    cut = TextEncoder(shorter, cache=cache).encode([text], truncate=True)
    encoded = TextEncoder(opened, cache=cache).encode([text], truncate=True)
    assert (cut.tokens[0], encoded.tokens[0]) == (20, LONGEST)
