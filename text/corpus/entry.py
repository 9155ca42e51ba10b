"""Defines an entry: texts of one page, package or message, aligned over languages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Split = Literal["train", "valid", "test"]
LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")  # en, pt-br
Part = Literal["text", "title", "body", "page", "keyword", "word", "a", "b", "query", "document"]

# Parts that are texts of their own. A page repeats the texts of its paragraphs, a keyword is a
# query, a word is an entry of a dictionary, and a query or document belongs to a retrieval task
# alone.
TEXTS: tuple[Part, ...] = ("text", "title", "body", "a", "b")


class Row(NamedTuple):
    """One text of an entry. Rows of the same part in other languages are its translations."""

    part: Part
    lang: str
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One page, package, message or line, with its texts in every language that has it.

    ``group``: page or package family, which is never divided between splits. ``meta``: what tasks
    need beside texts: ``labels`` by task, ``tags``, ``names`` to mask, ``score``, ``relevant``.
    """

    source: str
    id: str
    group: str
    rows: list[Row]
    split: Split | None = None  # None: by the group's hash
    meta: Mapping[str, Any] = field(default_factory=dict)


def rows_of(part: Part, texts: Mapping[str, str], languages: Iterable[str]) -> list[Row]:
    """Return the rows of a part, in the order of ``languages``."""
    return [Row(part, lang, texts[lang]) for lang in languages if texts.get(lang)]
