"""Plants pages among fillers: documents of given lengths, each with the page that a query asks for.

A document of n tokens is about n / 1.75 words long: what byte-level BPE of 16,384 pieces needs for
German, more than for English and Spanish. The page, at most half of the document, lies anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from text.corpus.entry import Entry
from text.corpus.split import hash_of
from text.corpus.tables import Tables

TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192)
TOKENS_A_WORD = 1.75
MOST = 100  # pages of a language
MOST_FILLER = 200_000  # words of a language


@dataclass(slots=True)
class _Page:
    entry: Entry
    text: str
    queries: list[str]


@dataclass
class Needles:
    """Pages of the test split with their queries, and fillers of the training split."""

    pages: dict[str, dict[str, _Page]] = field(default_factory=lambda: defaultdict(dict))
    fillers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # words
    asked: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, entry: Entry, lang: str, text: str, queries: Sequence[str]) -> None:
        if entry.split == "test":
            self.pages[lang][entry.id] = _Page(entry, text, list(queries))
        elif entry.split == "train" and len(self.fillers[lang]) < MOST_FILLER:
            self.fillers[lang] += text.split()

    def ask(self, relevant: Sequence[str], lang: str, query: str) -> None:
        self.asked[lang].setdefault(relevant[0], []).append(query)


def write(tables: Tables, needles: Needles) -> None:
    """Write a task ``planted-TOKENS`` for each length that the fillers suffice for."""
    for lang, pages in needles.pages.items():
        filler = needles.fillers[lang]
        uses: dict[str, int] = defaultdict(int)
        for name, page in pages.items():
            page.queries += needles.asked[lang].get(name, [])
            for query in set(page.queries):
                uses[query] += 1
        chosen = [
            (name, page, max(alone, key=len))
            for name, page in pages.items()
            if (alone := [query for query in page.queries if uses[query] == 1])
        ]
        chosen.sort(key=lambda each: hash_of(f"planted {each[0]}"))
        for tokens in TOKENS:
            size = int(tokens / TOKENS_A_WORD)
            if len(filler) < size:
                break
            for name, page, query in chosen[:MOST]:
                where = {"task": f"planted-{tokens}", "lang": lang, "split": "test"}
                text = plant(page.text.split(), filler, size, hash_of(f"{tokens} {name}"))
                tables.write(
                    "documents", id=name, text=text, source=page.entry.source, words=size, **where
                )
                tables.write(
                    "queries",
                    id=f"{name}?",
                    text=query,
                    relevant=[name],
                    source=page.entry.source,
                    **where,
                )


def plant(page: Sequence[str], filler: Sequence[str], size: int, seed: int) -> str:
    """Make a document of ``size`` words with the beginning of the page at a random place."""
    random = np.random.default_rng(seed)
    page = page[: size // 2]
    rest = size - len(page)
    start = int(random.integers(0, len(filler) - rest + 1))
    around = list(filler[start : start + rest])
    at = int(random.integers(0, rest + 1))
    return " ".join([*around[:at], *page, *around[at:]])
