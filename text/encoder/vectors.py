"""Encodes many texts, in the order given, by chunks of like lengths, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from text.encoder.batches import chunks, padded
from text.encoder.checkpoint import Checkpoint
from text.encoder.jinabert import JinaBert, mean_pooled
from text.tokenizer import TextTokenizer, Tokens
from training.progress import OnProgress, no_progress

MOST_TOKENS = 8192  # of a chunk, padding included
TRAINED_TOKENS = 4096  # of a chunk that is trained on


class TorchEncoder:
    """Encodes texts with a network in PyTorch."""

    def __init__(
        self, network: JinaBert, tokenizer: TextTokenizer, longest: int = 512, width: int = 0
    ) -> None:
        self._network, self._tokenizer, self._longest = network, tokenizer, longest
        self._width = width or network.sizes.hidden

    @classmethod
    def of(cls, checkpoint: Checkpoint, longest: int = 512) -> TorchEncoder:
        """Encode with a checkpoint's network."""
        return cls(checkpoint.network, checkpoint.tokenizer, longest)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors (N, D), of each text's first ``longest`` tokens."""
        tokens = self._tokenizer.encode(texts, self._longest)
        vectors = embed(self._network, tokens)[:, : self._width]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        units: NDArray[np.float32] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return units


def embed(
    network: JinaBert, tokens: Tokens, on_progress: OnProgress = no_progress
) -> NDArray[np.float32]:
    """Return unit vectors (N, D) of tokenised texts."""
    vectors = np.empty((len(tokens), network.sizes.hidden), np.float32)
    was_training, done = network.training, 0
    network.eval()
    with torch.inference_mode():
        for rows in chunks(tokens.lengths, MOST_TOKENS):
            vectors[rows] = F.normalize(network.embed(*padded(tokens, rows)), dim=-1).numpy()
            done += len(rows)
            on_progress("encode", done, len(tokens))
    network.train(was_training)
    return vectors


def embed_batch(network: JinaBert, tokens: Tokens, rows: NDArray[np.int64]) -> Tensor:
    """Return vectors (N, D) of the texts of a batch, for its gradient."""
    parts = chunks(tokens.lengths[rows], TRAINED_TOKENS)
    batches = [padded(tokens, rows[part]) for part in parts]
    # One look-up, since the gradient of each would have the size of the table.
    looked_up = network.embeddings(torch.cat([ids.ravel() for ids, _ in batches]))
    embedded = looked_up.split([ids.numel() for ids, _ in batches])
    with network.casting():  # weights are cast once
        vectors = [
            mean_pooled(network.encode(x.view(*ids.shape, -1), lengths), lengths)
            for (ids, lengths), x in zip(batches, embedded, strict=True)
        ]
    return torch.cat(vectors)[torch.from_numpy(np.argsort(np.concatenate(parts)))]
