"""Masked words by length of text, and the control with learnt positions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from text.ablate.learnt_positions import LearntPositions
from text.ablate.masked_words import LongText, accuracy, long_texts
from text.ablate.recipe import Length
from text.corpus.corpus import Corpus
from text.encoder.jinabert import JinaBert
from text.encoder.recipe import Masked
from text.encoder.run import RunError
from text.encoder.sizes import EncoderSizes
from text.tokenizer import MASK, TextTokenizer

SIZES = EncoderSizes(vocabulary=300, hidden=8, heads=2, layers=2, intermediate=8)


class Neighbour:
    """Predicts that a masked token is the one before it: 0 at the start of a piece."""

    embeddings = SimpleNamespace(word_embeddings=SimpleNamespace(weight=None))

    def __call__(self, ids: Tensor, lengths: Tensor) -> Tensor:
        assert bool((lengths == ids.shape[1]).all())
        before = torch.cat([ids[:, :1], ids[:, :-1]], 1)
        return torch.nn.functional.one_hot(before, 300).float()


def head(vectors: Tensor, words: None) -> Tensor:
    return vectors


def test_the_same_masked_tokens_are_counted_at_every_length() -> None:
    generator = np.random.default_rng(1)
    ids = np.repeat(generator.integers(5, 300, 255), 2)  # 510, each token twice
    chosen = np.arange(510) % 8 == 1  # the second of a token, never the first of a piece
    texts = [LongText(ids, chosen, (0, 2))]
    network, own = cast(Any, Neighbour()), cast(Any, head)
    expected = int(chosen[: 510 // 126 * 126].sum())
    for length in (128, 512):
        assert accuracy(network, own, texts, length, 512) == (expected, expected)
    other = [LongText(np.where(chosen, ids % 299 + 1, ids), chosen, (0, 2))]
    assert accuracy(network, own, other, 128, 512) == (0, expected)


def test_long_texts_are_of_one_length_with_whole_words_masked(tiny: Corpus) -> None:
    tokenizer = TextTokenizer.train(tiny.texts()["text"].to_pylist(), 300)
    sizes = Length(longest=512, texts=1, masked=Masked(share=0.3))
    texts = long_texts(tiny, tokenizer, "en", sizes)
    assert [len(text.ids) for text in texts] == [510]
    held_out = tiny.texts("en", "test").sort_by("id")["text"].to_pylist()
    tokens = tokenizer.encode(held_out, 1 << 20)
    own = tokens.words >= 0
    assert texts[0].ids.tolist() == tokens.ids[own][:510].tolist()
    text = np.repeat(np.arange(len(tokens)), tokens.lengths)[own][:510]
    for word in {*zip(text, tokens.words[own][:510], strict=True)}:
        of_word = (text == word[0]) & (tokens.words[own][:510] == word[1])
        assert len(set(texts[0].chosen[of_word])) == 1
    assert 0.15 < np.mean(texts[0].chosen) < 0.45
    with pytest.raises(RunError, match=r"fewer than 8190: --set length\.longest="):
        long_texts(tiny, tokenizer, "en", Length())


@pytest.fixture
def control() -> LearntPositions:
    torch.manual_seed(1)
    return LearntPositions(SIZES).double().eval()


def test_the_control_knows_positions_by_its_table_alone(control: LearntPositions) -> None:
    ids = torch.tensor([[7, 8, 9, 10, 11]])
    order, lengths = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([5])
    with torch.no_grad():
        moved = control(ids[:, order], lengths)
        assert not torch.allclose(moved, control(ids, lengths)[:, order])
        control.embeddings.position_embeddings.weight.zero_()  # type: ignore[operator, union-attr]
        assert torch.allclose(control(ids[:, order], lengths), control(ids, lengths)[:, order])
        alibi = JinaBert(SIZES).double().eval()
        assert not torch.allclose(alibi(ids[:, order], lengths), alibi(ids, lengths)[:, order])


def test_the_control_has_a_vector_for_each_of_8192_positions(control: LearntPositions) -> None:
    rows = control.get_parameter("embeddings.position_embeddings.weight")
    assert rows.shape == (8192, SIZES.hidden)
    assert float(rows.detach().square().mean().sqrt()) == pytest.approx(SIZES.initial_deviation)
    ids = torch.full((1, 300), MASK)
    vectors = control(ids, torch.tensor([300]))[0]
    assert not torch.allclose(vectors[10], vectors[290])


def test_the_control_starts_where_a_distance_is_the_same_product_at_every_place(
    control: LearntPositions,
) -> None:
    rows = control.get_parameter("embeddings.position_embeddings.weight").detach()
    for distance in (1, 5, 60):
        products = (rows[: 200 - distance] * rows[distance:200]).sum(1)
        assert torch.allclose(products, products[:1])
    near, far = (float(rows[0] @ rows[distance]) for distance in (1, 60))
    assert near > far


def test_padding_does_not_change_the_control(control: LearntPositions) -> None:
    alone = control(torch.tensor([[7, 8, 9]]), torch.tensor([3]))
    ids = torch.tensor([[7, 8, 9, 1, 1], [5, 6, 7, 8, 9]])
    assert torch.allclose(control(ids, torch.tensor([3, 5]))[0, :3], alone[0])
