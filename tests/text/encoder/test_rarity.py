"""The weights that tokens start with in a text's vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from text.encoder.jinabert import JinaBert
from text.encoder.rarity import inverse_document_frequencies, weigh
from text.encoder.sizes import EncoderSizes, Variant
from text.tokenizer import Tokens

VOCABULARY = 200


def sizes_of(variant: Variant, layers: int) -> EncoderSizes:
    return EncoderSizes(
        variant=variant, vocabulary=VOCABULARY, hidden=96, layers=layers, heads=4, intermediate=48
    )


@pytest.mark.parametrize("variant", ["base", "qk_norm", "code"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_tokens_share_of_a_text_grows_with_its_rarity(variant: Variant, layers: int) -> None:
    torch.manual_seed(1)
    network = JinaBert(sizes_of(variant, layers)).eval()
    idf = np.linspace(0, 9, VOCABULARY)
    weigh(network, idf, 2)
    with torch.inference_mode():
        alone = network(torch.arange(VOCABULARY)[:, None], torch.ones(VOCABULARY, dtype=torch.long))
    lengths = alone[:, 0].norm(dim=1).numpy()
    expected = np.clip((idf / 9) ** 2, 0.05, 0.95)
    assert np.corrcoef(lengths, expected)[0, 1] > 0.99
    assert lengths[0] < 0.3 * lengths[-1]


def test_without_weights_all_tokens_count_alike() -> None:
    network = JinaBert(sizes_of("base", 1)).eval()
    ids = torch.arange(VOCABULARY)[:, None]
    with torch.inference_mode():
        lengths = network(ids, torch.ones(VOCABULARY, dtype=torch.long))[:, 0].norm(dim=1)
    assert lengths.max() < 1.01 * lengths.min()


def test_rarity_is_of_texts_and_not_of_tokens() -> None:
    ids = np.array([0, 5, 5, 5, 2, 0, 5, 6, 2], np.int32)
    tokens = Tokens(ids, np.zeros(9, np.int32), np.array([0, 5, 9]))
    idf = inverse_document_frequencies(tokens, 8)
    expected = np.log(3 / np.array([3, 1, 3, 1, 1, 3, 2, 1]))
    assert idf == pytest.approx(expected)


def test_no_texts_change_nothing() -> None:
    network = JinaBert(sizes_of("base", 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    empty = np.empty(0, np.int32)
    none = Tokens(empty, empty, np.zeros(1, np.int64))
    weigh(network, inverse_document_frequencies(none, VOCABULARY), 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
