"""Numbers of text ids: a keyed digest that may never change, and what is no text id."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contract import MAX_ID
from feature_store.text_ids import KEY_BYTES, LONGEST, TextIds, checked_text, new_key

KEY = bytes(range(KEY_BYTES))


@pytest.mark.parametrize(
    ("text", "number"),
    [  # BLAKE2b-64 with this key, without its last bit
        ("sku-1", 1395717386208769807),
        ("3f1c2f0e-7f5d-4d2b-9a35-2b8f5f1d0c11", 8404892231761331780),
        ("größe/🛍", 2310469285117660745),
    ],
)
def test_the_number_of_a_text_never_changes(text: str, number: int) -> None:
    assert TextIds(KEY).number(text) == number


def test_another_key_gives_other_numbers() -> None:
    assert TextIds(KEY).number("sku-1") != TextIds(KEY[::-1]).number("sku-1")
    assert len(new_key()) == KEY_BYTES
    assert new_key() != new_key()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=LONGEST)))
def test_numbers_are_ids_and_follow_the_texts(texts: list[str]) -> None:
    text_ids = TextIds(KEY)
    numbers = text_ids.numbers(texts)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [text_ids.number(text) for text in texts]
    assert all(0 <= number <= MAX_ID for number in numbers.tolist())
    assert len(set(numbers.tolist())) == len(set(texts))


def test_texts_are_taken_as_they_are() -> None:
    texts = ["a", "A", " a", "a ", "é", "e\u0301", "1", "01"]
    assert len(set(TextIds(KEY).numbers(texts).tolist())) == len(texts)


@pytest.mark.parametrize("text", ["a", " ", "\0", "x" * LONGEST, "🛍" * LONGEST])
def test_a_text_of_up_to_128_characters_is_an_id(text: str) -> None:
    assert checked_text(text, "user id") == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "user id: 0 characters instead of 1 to 128"),
        ("x" * (LONGEST + 1), "user id: 129 characters instead of 1 to 128"),
        ("a\ud800", "user id: not Unicode text"),
    ],
)
def test_what_is_no_text_id_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked_text(text, "user id")
