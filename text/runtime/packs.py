"""Packs texts into rows: which texts lie beside each other in which run of the graph.

A run has R rows of T tokens. Products cost the same for every token, attention T for each; so rows
are as short as their longest text allows, and a few texts fill what it leaves free.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING = -1  # text number of a place without a token
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pack:
    """One run of the graph: rows of texts, by their places in the list."""

    length: int  # T
    rows: tuple[tuple[int, ...], ...]

    @property
    def texts(self) -> tuple[int, ...]:
        """Places of the texts, row by row."""
        return tuple(text for row in self.rows for text in row)


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Inputs of the graph, position-major, and where each text's vector is in its output."""

    ids: Ids  # (T, R)
    text: Ids  # (T, R), numbers within a row; PADDING
    row: Ids  # (S,) of each text of the pack
    number: Ids  # (S,)


def pack(lengths: Sequence[int], row: int, call: int) -> Iterator[Pack]:
    """Yield packs of texts of the given lengths, longest first.

    ``row``: least tokens of a row of several texts; ``call``: tokens of a pack, unless one text has
    more. First-fit by length: a row takes the longest text left, then the longest that fits.
    """
    left = _Left(lengths)
    while left:
        length = max(left.longest, min(row, left.tokens))
        rows: list[tuple[int, ...]] = []
        # In a row twice as long as its texts attention would cost twice as much.
        while left and len(rows) < max(1, call // length) and 2 * left.longest > length - row:
            rows.append(tuple(left.fitting(length)))
        yield Pack(length, tuple(rows))


class _Left:
    """Texts that lie in no row yet, by length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._texts: dict[int, list[int]] = {}
        for text, length in enumerate(lengths):
            self._texts.setdefault(int(length), []).append(text)
        self._lengths = sorted(self._texts)
        self.tokens = int(sum(lengths))

    def __bool__(self) -> bool:
        return bool(self._lengths)

    @property
    def longest(self) -> int:
        return self._lengths[-1]

    def fitting(self, room: int) -> Iterator[int]:
        """Take texts, the longest that fits first, until none does."""
        while place := bisect_right(self._lengths, room):
            length = self._lengths[place - 1]
            texts = self._texts[length]
            yield texts.pop()
            if not texts:
                del self._texts[length], self._lengths[place - 1]
            room -= length
            self.tokens -= length


def tokens_of(pack: Pack, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> PackedTokens:
    """Lay out a pack's tokens; text i has ``ids[offsets[i]:offsets[i + 1]]``."""
    shape = (len(pack.rows), pack.length)
    laid, text = np.zeros(shape, np.int64), np.full(shape, PADDING, np.int64)
    places = []
    for r, row in enumerate(pack.rows):
        start = 0
        for number, index in enumerate(row):
            own = ids[offsets[index] : offsets[index + 1]]
            stop = start + len(own)
            laid[r, start:stop], text[r, start:stop] = own, number
            places.append((r, number))
            start = stop
    at = np.asarray(places, np.int64)
    ids_by_position, text_by_position = map(np.ascontiguousarray, (laid.T, text.T))
    return PackedTokens(ids_by_position, text_by_position, at[:, 0], at[:, 1])
