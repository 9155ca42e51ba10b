"""Encodes many texts: unit vectors in the order given, batches of like lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from text.encoder.batches import padded
from text.encoder.checkpoint import Checkpoint
from text.encoder.jinabert import JinaBert
from text.tokenizer import TextTokenizer, Tokens
from training.progress import OnProgress, no_progress

MOST_TOKENS = 8192  # of a batch, padding included


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
    order = np.argsort(tokens.lengths, kind="stable")
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        start = 0
        while start < len(order):
            stop = _end_of_batch(tokens.lengths[order], start)
            rows = order[start:stop]
            vectors[rows] = F.normalize(network.embed(*padded(tokens, rows)), dim=-1).numpy()
            start = stop
            on_progress("encode", start, len(order))
    network.train(was_training)
    return vectors


def _end_of_batch(lengths: NDArray[np.int64], start: int) -> int:
    """Return the end of the largest batch, of ascending lengths, with at most MOST_TOKENS."""
    stop = min(len(lengths), start + max(1, MOST_TOKENS // int(lengths[start])))
    while stop > start + 1 and int(lengths[stop - 1]) * (stop - start) > MOST_TOKENS:
        stop = start + (stop - start + 1) // 2
    return stop
