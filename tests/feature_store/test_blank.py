"""A text is blank if it shows nothing."""

from __future__ import annotations

import sys
import unicodedata
from time import thread_time

import pytest

from feature_store.descriptions import is_blank


@pytest.mark.parametrize(
    "text",
    ["", " ", "\t\r\n", "\u00a0\u2003\u3000", "\ufeff", "\u200b", "\x00\x1f\x7f", "\u202e\u2028"],
)
def test_white_space_control_and_format_characters_are_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(text + "a" + text)


@pytest.mark.parametrize("text", ["a", ".", "é", "e\u0301", "漢", "👩\u200d💻", "\ue000", "\u0378"])
def test_all_else_is_a_text(text: str) -> None:
    """A character that is private, or that this Unicode does not have yet, may be one to see."""
    assert not is_blank(text)


def test_categories_of_single_characters() -> None:
    """All white space and control characters, and else format characters alone."""
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for code in range(sys.maxunicode + 1):
        kinds[is_blank(chr(code))].add(unicodedata.category(chr(code)))
    assert kinds[True] == {"Zs", "Zl", "Zp", "Cc", "Cf"}
    assert kinds[False].isdisjoint(kinds[True] - {"Cf"})


def test_a_megabyte_of_nothing_takes_little_time() -> None:
    taken = []
    for _ in range(3):
        began = thread_time()
        assert is_blank(" \u200b" * 250_000)
        taken.append(thread_time() - began)
    assert min(taken) < 0.02
