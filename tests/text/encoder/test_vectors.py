"""Vectors of the texts of a batch, and their gradients, do not depend on its chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.text.encoder.test_batches import tokens_of
from text.encoder import vectors
from text.encoder.batches import padded
from text.encoder.jinabert import JinaBert
from text.encoder.sizes import EncoderSizes

SIZES = EncoderSizes(vocabulary=300, hidden=16, layers=2, heads=2, intermediate=24)
ROWS = np.asarray([3, 0, 3, 5, 1, 4])


def test_chunks_of_a_batch_give_the_vectors_and_gradients_of_each_text_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vectors, "TRAINED_TOKENS", 24)
    tokens = tokens_of([7, 3, 30, 12, 9, 5])
    torch.manual_seed(1)
    network = JinaBert(SIZES).double()
    weights = torch.randn(len(ROWS), 16, dtype=torch.float64)
    together = vectors.embed_batch(network, tokens, ROWS)
    (together * weights).sum().backward()
    gradients = {name: x.grad.clone() for name, x in network.named_parameters()}
    network.zero_grad()
    alone = torch.cat([network.embed(*padded(tokens, ROWS[[i]])) for i in range(len(ROWS))])
    (alone * weights).sum().backward()
    assert torch.allclose(together, alone, atol=1e-12)
    for name, x in network.named_parameters():
        assert torch.allclose(gradients[name], x.grad, atol=1e-12), name


def test_bfloat16_is_of_the_products_alone() -> None:
    tokens = tokens_of([7, 3, 30, 12, 9, 5])
    torch.manual_seed(1)
    network = JinaBert(SIZES)
    exact = vectors.embed_batch(network, tokens, ROWS)
    network.precision = "bfloat16"
    near = vectors.embed_batch(network, tokens, ROWS)
    assert near.dtype == torch.float32
    difference = (near - exact).abs().max().item()
    assert 0 < difference < 0.05
    near.sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in network.parameters())
