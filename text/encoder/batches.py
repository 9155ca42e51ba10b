"""Draws batches: every batch follows from (seed, stage, step) alone, so that a resumed run sees
the batches of an uninterrupted one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text.tokenizer import Tokens

POOL = 16  # batches drawn together and sorted by length, so that a batch has little padding


def generator_of(seed: int, stage: str, step: int) -> np.random.Generator:
    """Return the generator of a step."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step])


def padded(tokens: Tokens, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return ids (B, L) and lengths (B,) of texts, padded to the longest of them."""
    lengths = tokens.lengths[rows]
    ids = np.full((len(rows), int(lengths.max())), tokens.pad, np.int64)
    own = np.arange(ids.shape[1]) < lengths[:, None]
    ids[own] = tokens.ids[_positions(tokens, rows)]
    return torch.from_numpy(ids), torch.from_numpy(lengths)


def words_of(tokens: Tokens, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the words of texts' tokens, numbered on from text to text; −1 at special tokens."""
    words = tokens.words[_positions(tokens, rows)].astype(np.int64)
    text = np.repeat(np.arange(len(rows)), tokens.lengths[rows])
    most = int(words.max(initial=0)) + 1
    return np.where(words < 0, -1, words + text * most)


def _positions(tokens: Tokens, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the tokens of texts are, text after text."""
    lengths = tokens.lengths[rows]
    ends = np.cumsum(lengths)
    return np.repeat(tokens.offsets[rows] - (ends - lengths), lengths) + np.arange(ends[-1])


def chunks(lengths: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Divide texts into chunks of like lengths, of at most ``most`` tokens with padding.

    Returns the texts of each chunk, ascending by length; a longer text is a chunk of its own.
    """
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    parts, start = [], 0
    while start < len(order):
        padded_to = ascending[start:] * np.arange(1, len(order) - start + 1)
        stop = start + max(1, int(np.searchsorted(padded_to, most, "right")))
        parts.append(order[start:stop])
        start = stop
    return parts


@dataclass(frozen=True)
class Sampler:
    """Draws texts of several groups (languages) equally often, batches of like lengths."""

    lengths: NDArray[np.int64]  # (N,)
    groups: tuple[NDArray[np.int64], ...]  # rows of each group
    batch_size: int
    seed: int
    stage: str

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the rows (B,) of a step."""
        pool, number = divmod(step, POOL)
        generator = generator_of(self.seed, self.stage, pool)
        wanted = self.batch_size * POOL
        drawn = np.concatenate(
            [
                generator.choice(rows, -(-wanted // len(self.groups)), replace=len(rows) < wanted)
                for rows in self.groups
            ]
        )
        drawn = generator.permutation(drawn)[:wanted]
        drawn = drawn[np.argsort(self.lengths[drawn], kind="stable")]
        place = int(generator.permutation(POOL)[number]) * self.batch_size
        return drawn[place : place + self.batch_size]


def distinct(
    rows: NDArray[np.int64], keys: tuple[NDArray[np.int64], ...], most: int
) -> NDArray[np.int64]:
    """Return the first ``most`` of the rows no two of which have a key in common.

    A batch that holds a text or a family of texts twice has false negatives.
    """
    seen: tuple[set[int], ...] = tuple(set() for _ in keys)
    kept: list[int] = []
    for row in rows.tolist():
        own = [int(key[row]) for key in keys]
        if not any(value in known for value, known in zip(own, seen, strict=True)):
            kept.append(row)
            for value, known in zip(own, seen, strict=True):
                known.add(value)
            if len(kept) == most:
                break
    return np.asarray(kept, np.int64)
