"""Late chunking: spans of characters to means of tokens."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from text.runtime.chunks import Span, SpanError, check_spans, overlapping, pooled

# "two words  more": <s> two ␣words (split in two) ␣␣more </s>
PLACES = np.array([(-1, -1), (0, 3), (4, 7), (7, 9), (11, 15), (-1, -1)], np.int64)
CHARACTERS = 15
TOKEN = np.random.default_rng(0).normal(size=(len(PLACES), 5)).astype(np.float32)


def unit(rows: list[int]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = TOKEN[rows].astype(np.float64).mean(0)
    unit: NDArray[np.float64] = mean / np.linalg.norm(mean)
    return unit


@pytest.mark.parametrize(
    ("span", "rows"),
    [
        ((0, 15), [1, 2, 3, 4]),  # special tokens are in no span
        ((0, 3), [1]),
        ((0, 4), [1]),
        ((4, 9), [2, 3]),
        ((4, 8), [2, 3]),  # a token that straddles the end
        ((6, 12), [2, 3, 4]),
        ((8, 9), [3]),
        ((12, 13), [4]),  # within a token
    ],
)
def test_a_span_is_the_mean_of_the_tokens_that_share_a_character_with_it(
    span: Span, rows: list[int]
) -> None:
    vectors, tokens = pooled(TOKEN, PLACES, [span])
    np.testing.assert_allclose(vectors[0], unit(rows), atol=1e-7)
    assert tokens.tolist() == [len(rows)]
    assert vectors.dtype == np.float32


def test_spans_that_overlap_are_each_answered_and_named() -> None:
    spans = [(4, 9), (0, 3), (6, 15), (3, 4), (0, 2)]
    _, tokens = pooled(TOKEN, PLACES, [span for span in spans if span != (3, 4)])
    assert tokens.tolist() == [2, 1, 3, 1]
    assert overlapping(spans).tolist() == [True, True, True, False, True]
    assert not overlapping([(0, 3), (3, 6), (6, 9)]).any()
    assert overlapping([(0, 9), (1, 2), (3, 4), (9, 12)]).tolist() == [True, True, True, False]
    assert overlapping([(2, 5), (2, 5)]).all()


@pytest.mark.parametrize(
    ("span", "fault"),
    [
        ((3, 3), "span 1 [3, 3): empty: its end must be beyond its start"),
        ((5, 4), "span 1 [5, 4): empty: its end must be beyond its start"),
        ((-1, 4), "span 1 [-1, 4): outside of the text, which has 15 characters"),
        ((3, 16), "span 1 [3, 16): outside of the text, which has 15 characters"),
        ((20, 30), "span 1 [20, 30): outside of the text, which has 15 characters"),
    ],
)
def test_a_span_that_is_no_part_of_the_text_is_named(span: Span, fault: str) -> None:
    with pytest.raises(SpanError) as raised:
        check_spans([(0, 3), span], CHARACTERS)
    assert str(raised.value) == fault
    assert raised.value.index == 1


def test_a_span_without_a_token_is_named() -> None:
    check_spans([(0, 3), (9, 11)], CHARACTERS)
    with pytest.raises(SpanError, match=r"^span 1 \[9, 11\): no token: white space alone$"):
        pooled(TOKEN, PLACES, [(0, 3), (9, 11)])
    cut = PLACES[[0, 1, 2, 5]]  # the text was truncated after "two wor"
    with pytest.raises(SpanError, match=r"no token: the text was read to character 7$"):
        pooled(TOKEN[:4], cut, [(11, 15)])
    with pytest.raises(SpanError, match=r"no token: the text was read to character 0$"):
        pooled(TOKEN[:2], PLACES[[0, 5]], [(0, 3)])


def test_no_spans_have_no_vectors() -> None:
    assert pooled(TOKEN, PLACES, [])[0].shape == (0, 5)
