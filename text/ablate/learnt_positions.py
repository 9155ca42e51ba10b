"""The control of the claim on length: learnt absolute positions, as BERT's, in place of ALiBi."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from text.encoder.alibi import BLOCK, WHOLE
from text.encoder.jinabert import Embeddings, JinaBert, padding
from text.encoder.sizes import EncoderSizes

ROWS = 8192  # of the position table: the longest text
SLOWEST = 10_000.0  # positions per radian of the last pair of numbers


class LearntPositions(JinaBert):
    """JinaBERT without ALiBi whose embeddings add a learnt vector of each position."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__(sizes)
        self.embeddings = PositionedEmbeddings(sizes)
        self.embeddings.apply(self._initialise)
        self.embeddings.start_from_sinusoids(sizes.initial_deviation)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, L, D): the layers applied to embedded tokens (B, L, D), without biases."""
        mask = PaddingAlone(lengths, x.shape[1], x)
        with self.casting():
            for layer in self.encoder.layer:  # type: ignore[union-attr]
                x = layer(x, mask)
        return x


class PositionedEmbeddings(Embeddings):
    """Sums the vectors of token, type 0 and position, then normalises.

    Positions start as sinusoids: from random rows, neighbours are found too late for a small run.
    """

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__(sizes)
        self.position_embeddings = nn.Embedding(ROWS, sizes.hidden)

    def start_from_sinusoids(self, deviation: float) -> None:
        """Set the table to sinusoids (Vaswani et al. 2017) whose numbers have that deviation."""
        rows, width = self.position_embeddings.weight.shape
        rates = torch.exp(-math.log(SLOWEST) * torch.arange(0, width, 2) / width)
        angles = torch.arange(rows)[:, None] * rates  # (rows, ⌈width / 2⌉)
        waves = torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :width]
        with torch.no_grad():
            self.position_embeddings.weight.copy_(math.sqrt(2) * deviation * waves)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x + self.position_embeddings.weight[: ids.shape[1]])  # type: ignore[no-any-return]


class PaddingAlone:
    """In place of ``Biases``: 0, and −∞ at padded keys."""

    def __init__(self, lengths: Tensor, longest: int, like: Tensor) -> None:
        self.block = longest if longest <= WHOLE else BLOCK
        padded = padding(lengths, longest)  # (B, L)
        self._mask = like.new_zeros(padded.shape).masked_fill(padded, -torch.inf)[:, None, None]

    def rows(self, start: int) -> Tensor:
        """Return (B, 1, 1, L), for queries of any place."""
        return self._mask
