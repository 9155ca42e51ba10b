"""Late chunking: one pass over a text, then a vector for each of its spans.

A span's vector is the mean of its tokens' vectors, which have seen all of the text. A token belongs
to every span that it shares a character with; special tokens belong to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text.runtime.inputs import is_integer, is_pair
from text.runtime.windows import Certificate

Span = tuple[int, int]  # characters [start, end)
MOST_SHOWN = 20  # characters of an end that is no integer


class SpanError(ValueError):
    """A span that has no vector; ``index`` is its place in the list.

    ``text``: the place of its text, where a caller has several.
    """

    text = 0

    def __init__(self, index: int, span: Any, fault: str) -> None:
        self.index, self.fault = index, fault
        said = f"[{_shown(span[0])}, {_shown(span[1])})" if is_pair(span) else _shown(span)
        super().__init__(f"span {index} {said}: {fault}")


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Answers in the order of the spans, of one pass over their text."""

    vectors: NDArray[np.float32]  # (S, D), unit length
    tokens: NDArray[np.int64]  # (S,) of each span
    overlapping: NDArray[np.bool_]  # (S,) spans that share a character with another
    truncated: bool  # the text's end was cut
    certificate: Certificate
    vector: NDArray[np.float32]  # (D,) of the whole text
    read: int  # tokens of the text, special ones included


def check_spans(spans: Sequence[Span], characters: int) -> None:
    """Raise SpanError for a span that is empty or not within a text of so many characters.

    Also for one that is not two integers.
    """
    for index, span in enumerate(spans):
        if not (is_pair(span) and all(map(is_integer, span))):
            raise SpanError(index, span, "must be two integers, (start, end)")
        start, end = span
        if start < 0 or end > characters:
            fault = f"outside of the text, which has {characters:,} characters"
            raise SpanError(index, (start, end), fault)
        if start >= end:
            raise SpanError(index, (start, end), "empty: its end must be beyond its start")


def pooled(
    token: NDArray[np.float32], places: NDArray[np.int64], spans: Sequence[Span]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pool token vectors (L, D), whose characters are ``places`` (L, 2), over checked spans.

    Return unit vectors (S, D) and numbers of tokens (S,). ``places`` ascend; −1 at special tokens.
    Raises SpanError for a span without a token.
    """
    own = np.flatnonzero(places[:, 0] >= 0)
    starts, ends = places[own].T
    vectors = np.empty((len(spans), token.shape[1]), np.float32)
    counts = np.empty(len(spans), np.int64)
    for index, (start, end) in enumerate(spans):
        first, last = np.searchsorted(ends, start, "right"), np.searchsorted(starts, end, "left")
        if first >= last:
            read = int(ends[-1]) if len(ends) else 0
            fault = "no token: white space alone"
            if start >= read:
                fault = f"no token: the text was read to character {read:,}"
            raise SpanError(index, (start, end), fault)
        mean = token[own[first:last]].mean(0, dtype=np.float64)
        vectors[index], counts[index] = mean / np.linalg.norm(mean), last - first
    return vectors, counts


def overlapping(spans: Sequence[Span]) -> NDArray[np.bool_]:
    """(S,) whether each span shares a character with another."""
    found = np.zeros(len(spans), np.bool_)
    reached, reaching = -1, -1  # the farthest end so far, and the span that has it
    for index in sorted(range(len(spans)), key=lambda i: spans[i]):
        start, end = spans[index]
        if start < reached:
            found[[index, reaching]] = True
        if end > reached:
            reached, reaching = end, index
    return found


def _shown(value: Any) -> str:
    return str(value) if is_integer(value) else ascii(value)[:MOST_SHOWN]
