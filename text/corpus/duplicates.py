"""Finds duplicates by normalised text, and near-duplicates by MinHash over word bigrams.

MinHash signatures of 32 values, in 8 bands of 4 (locality-sensitive hashing): texts that agree in a
band are compared by their signatures, whose share of equal values estimates the Jaccard similarity.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 32
BANDS = 8
SIMILAR = 26  # of 32 equal values: a Jaccard similarity of about 0.8
_WORD = re.compile(r"[^\W_]+")
_DIGITS = re.compile(r"\d+")
_random = np.random.default_rng(20_240_217)
_MULTIPLIERS = _random.integers(1, 2**63, (PERMUTATIONS, 1), np.uint64) * np.uint64(2) + np.uint64(
    1
)
_SECOND = np.uint64(0x9E3779B97F4A7C15)


class Verdict(IntEnum):
    """What became of a text."""

    KEPT = 0
    DUPLICATE = 1  # of a text of the same split
    NEAR_DUPLICATE = 2
    RECURS = 3  # equal or near to a text of a split that counts before its own


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case, numbers alike."""
    return _WORD.findall(_DIGITS.sub("0", text.casefold()))


def signatures(texts: Sequence[Sequence[str]]) -> NDArray[np.uint32]:
    """Return MinHash signatures (N, 32) of texts, each given as its words."""
    if not texts:
        return np.zeros((0, PERMUTATIONS), np.uint32)
    # Every text ends with an empty word, so that one word makes a bigram, too.
    lengths = np.array([len(text) for text in texts])
    hashes = np.array(
        [crc32(word.encode()) for text in texts for word in (*text, "")], np.uint64
    )  # (words + N,)
    ends = np.cumsum(lengths + 1)
    bigrams = hashes * _SECOND + np.roll(hashes, -1)
    # A text's last bigram would reach into the next text: it is the last word alone.
    bigrams[ends - 1] = hashes[ends - 2] * _SECOND
    bigrams ^= bigrams >> np.uint64(29)
    starts = ends - lengths - 1
    found = np.empty((len(texts), PERMUTATIONS), np.uint32)
    for k in range(PERMUTATIONS):
        values = ((bigrams * _MULTIPLIERS[k]) >> np.uint64(32)).astype(np.uint32)
        found[:, k] = np.minimum.reduceat(values, starts)
    return found


def judge(
    keys: NDArray[np.uint64],  # (N,) hash of language and normalised text
    spaces: NDArray[np.uint64],  # (N,) texts of different spaces are never near-duplicates
    minhashes: NDArray[np.uint32],  # (N, 32)
    splits: NDArray[np.uint8],  # (N,) in the order in which they keep a text
    ranks: NDArray[np.uint8],  # (N,) within a split, the lowest rank keeps a text
    comparable: NDArray[np.bool_],  # (N,) compared for near-duplicates
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a verdict on each text, and the text that it repeats, itself if none. Of equal or
    near texts, the first is kept.
    """
    verdicts = np.full(len(keys), Verdict.KEPT, np.uint8)
    repeated = np.arange(len(keys))
    place = np.empty(len(keys), np.int64)
    place[np.lexsort((ranks, splits))] = np.arange(len(keys))  # stable: then by index

    order = np.lexsort((place, keys))
    heads = _heads(keys[order])
    inside = heads != np.arange(len(order))

    def mark(rows: NDArray[np.int64], others: NDArray[np.int64], verdict: Verdict) -> None:
        found = np.where(splits[rows] == splits[others], verdict, Verdict.RECURS).astype(np.uint8)
        repeated[rows] = np.where(found > verdicts[rows], others, repeated[rows])
        verdicts[rows] = np.maximum(verdicts[rows], found)

    mark(order[inside], order[heads[inside]], Verdict.DUPLICATE)
    left = np.flatnonzero((repeated == np.arange(len(keys))) & comparable)
    rows = PERMUTATIONS // BANDS
    for band in range(BANDS):
        part = minhashes[left, band * rows : (band + 1) * rows].astype(np.uint64)
        bucket = spaces[left].copy()
        for k in range(rows):
            bucket = bucket * _SECOND + part[:, k]
        sort = np.lexsort((place[left], bucket))
        order, heads = left[sort], _heads(bucket[sort])
        for other in (order[heads], np.roll(order, 1)):  # the bucket's first, and the one before
            inside = np.flatnonzero(heads != np.arange(len(order)))
            alike = (minhashes[order[inside]] == minhashes[other[inside]]).sum(1) >= SIMILAR
            mark(order[inside[alike]], other[inside[alike]], Verdict.NEAR_DUPLICATE)
    while (repeated[repeated] != repeated).any():  # of a text that repeats another one itself
        repeated = repeated[repeated]
    verdicts[splits[repeated] != splits] = Verdict.RECURS  # by way of others, too
    return verdicts, repeated


def _heads(ordered: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return, for each place of an ordered array, the first of its run of equal values."""
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    heads: NDArray[np.int64] = np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))
    return heads
