"""Reads the Ding dictionary (German-English): words, phrases and example sentences.

``German; synonym | phrase :: English; synonym | phrase``: parts between bars are translations of
each other, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from text.corpus.archives import Archives
from text.corpus.entry import Entry, Part, rows_of

SOURCE = "trans-de-en"
LEAST_WORDS = 3  # of the longer side of a phrase; shorter ones are words
_SEMICOLON = re.compile(r";(?![^()]*\))")  # not within parentheses
_REMARK = re.compile(r"\{[^}]*\}|\[[^\]]*\]|/[^/]*/|<[^>]*>")


def read(archives: Archives, languages: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry a translation; none if English or German is not wanted."""
    if not {"de", "en"} <= set(languages):
        return
    for _, content in archives.files(SOURCE, r"usr/share/trans/de-en"):
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines()):
            if not line.startswith("#"):
                for place, (german, english) in enumerate(translations(line)):
                    spaces = max(german.count(" "), english.count(" "))
                    part: Part = "text" if spaces >= LEAST_WORDS - 1 else "word"
                    rows = rows_of(part, {"de": german, "en": english}, languages)
                    yield Entry(SOURCE, f"{number}.{place}", f"{SOURCE}:{number}", rows)


def translations(line: str) -> Iterator[tuple[str, str]]:
    """Yield the German and the English side of each translation of a line of Ding."""
    german, _, english = line.partition("::")
    sides = [side.split("|") for side in (german, english)]
    if len(sides[0]) != len(sides[1]):
        return
    for parts in zip(*sides, strict=True):
        synonyms = [[without_remarks(text) for text in _SEMICOLON.split(part)] for part in parts]
        if len(synonyms[0]) == len(synonyms[1]):
            yield from zip(*synonyms, strict=True)
        else:
            yield synonyms[0][0], synonyms[1][0]


def without_remarks(text: str) -> str:
    """Return a text without what is in braces, brackets or slashes, such as pronunciations."""
    return " ".join(_REMARK.sub(" ", text).split())
