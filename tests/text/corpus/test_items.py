"""Items of a corpus: packages with their tags, in each language that has their text."""

from __future__ import annotations

import re

from tests.text.corpus.archives import TAGS
from text.corpus.corpus import Corpus
from text.corpus.split import split_of


def test_an_item_is_a_package_with_its_tags_and_its_section(corpus: Corpus) -> None:
    rows = corpus.items("en").to_pylist()
    assert len(rows) > 100
    for row in rows:
        number = int(re.fullmatch(r"pkg(\d+)", row["id"])[1])  # type: ignore[index]
        assert set(row["tags"]) == {TAGS[number * k % len(TAGS)] for k in (1, 3, 5, 7)} | {
            f"section::{('games', 'text', 'net')[number % 3]}"
        }
        assert row["split"] == split_of(f"packages:family{number // 2}")
        assert row["text"].count(".") > 3  # title and description


def test_an_item_has_the_same_tags_in_every_language(corpus: Corpus) -> None:
    english, german = (
        {row["id"]: row for row in corpus.items(lang).to_pylist()} for lang in ("en", "de")
    )
    both = english.keys() & german.keys()
    assert len(both) > 100
    for name in both:
        assert english[name]["tags"] == german[name]["tags"]
        assert english[name]["text"] != german[name]["text"]
