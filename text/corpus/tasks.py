"""Makes the tasks of a corpus: retrieval by keyword and by title, labels, long documents."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from text.corpus import planted
from text.corpus.collection import Judged
from text.corpus.duplicates import Verdict, words
from text.corpus.entry import Entry
from text.corpus.graded import LEAST_TAGS, Tagged
from text.corpus.items import ItemWriter
from text.corpus.tables import Tables

LONG_WORDS = 600  # about 1,000 tokens
MASK = "…"
MOST_COMMON = 50  # descriptions that have a word which still gives a name away
LEAST_QUERY = 2  # words of a title without the names
FILL = 1_000  # documents of the training split in a language: small corpora have pools, too
MOST_LABELLED = 2_000  # texts of a task, language and split


@dataclass(slots=True)
class _Described:
    """A package of the task ``titles``, before its names are masked."""

    entry: Entry
    titles: dict[str, str]
    bodies: dict[str, str]


@dataclass
class Tasks:
    """Gathers the tasks while entries go by; ``finish`` writes those that need them all."""

    tables: Tables
    languages: Sequence[str]
    tagged: list[Tagged] = field(default_factory=list)
    _needles: planted.Needles = field(default_factory=planted.Needles)
    _described: list[_Described] = field(default_factory=list)
    _frequency: Counter[str] = field(default_factory=Counter)
    _others: Counter[str] = field(default_factory=Counter)
    _labelled: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _items: ItemWriter = field(init=False)

    def __post_init__(self) -> None:
        self._items = ItemWriter(self.tables)

    def add(self, entry: Entry, judged: Sequence[Judged]) -> None:
        parts: dict[str, dict[str, Judged]] = defaultdict(dict)
        for each in judged:
            if each.row.part not in ("keyword", "query"):
                parts[each.row.part].setdefault(each.row.lang, each)
        texts = {
            part: {lang: each.row.text for lang, each in found.items()}
            for part, found in parts.items()
        }
        if "names" in entry.meta:
            self._package(entry, parts, texts)
        self._labels(entry, texts)
        self._items.add(entry, parts)
        self._pages(entry, judged, parts["page"])
        self._given(entry, judged)

    def _package(
        self, entry: Entry, parts: dict[str, dict[str, Judged]], texts: dict[str, dict[str, str]]
    ) -> None:
        assert entry.split
        titles, bodies = texts.get("title", {}), texts.get("body", {})
        for body in bodies.values():
            self._frequency.update(set(words(body)))
        both = [lang for lang in self.languages if lang in titles and lang in bodies]
        tags = tuple(entry.meta["tags"])
        leaks = any(
            each.verdict is Verdict.RECURS for found in parts.values() for each in found.values()
        )
        if len(both) == len(self.languages) and len(tags) >= LEAST_TAGS and not leaks:
            described = {lang: f"{titles[lang]}. {bodies[lang]}" for lang in both}
            self.tagged.append(Tagged(entry.id, entry.group, entry.split, tags, described))
        kept = [lang for lang in both if parts["body"][lang].verdict is Verdict.KEPT]
        if len(kept) < min(2, len(self.languages)):
            return
        if entry.split == "train":
            kept = [lang for lang in kept if self._others[lang] < FILL]
            self._others.update(kept)
            if not kept:
                return
        self._described.append(
            _Described(
                entry, {lang: titles[lang] for lang in kept}, {lang: bodies[lang] for lang in kept}
            )
        )

    def _labels(self, entry: Entry, texts: dict[str, dict[str, str]]) -> None:
        for task, label in entry.meta.get("labels", {}).items():
            documents = texts.get("page") or texts.get("body") or texts.get("text") or {}
            for lang, text in documents.items():
                title = texts.get("title", {}).get(lang)
                key = (task, lang, entry.split or "")
                self._labelled[key] += 1
                if label and self._labelled[key] <= MOST_LABELLED:
                    self.tables.write(
                        "labels",
                        task=task,
                        lang=lang,
                        text=f"{title}. {text}" if title else text,
                        label=label,
                        source=entry.source,
                        split=entry.split,
                    )

    def _pages(self, entry: Entry, judged: Sequence[Judged], pages: dict[str, Judged]) -> None:
        keywords = [each.row for each in judged if each.row.part == "keyword"]
        for lang, page in pages.items():
            if page.words >= LONG_WORDS and page.verdict is not Verdict.RECURS:
                self._document("long", entry, lang, page.row.text, page.words)
            own = list(dict.fromkeys(row.text for row in keywords if row.lang == lang))
            if own:
                self._document("keywords", entry, lang, page.row.text, page.words)
            self._needles.add(entry, lang, page.row.text, own)
            if entry.split != "train":
                for number, text in enumerate(own):
                    name = f"{entry.id}?{number}"
                    self._query("keywords", entry, name, lang, text, [entry.id])

    def _given(self, entry: Entry, judged: Sequence[Judged]) -> None:
        """Queries and documents of a task of one's own."""
        for row, count, *_ in judged:
            if row.part == "document":
                self._document(entry.meta["task"], entry, row.lang, row.text, count)
                self._needles.add(entry, row.lang, row.text, [])
            elif row.part == "query":
                relevant = entry.meta["relevant"]
                self._query(entry.meta["task"], entry, entry.id, row.lang, row.text, relevant)
                self._needles.ask(relevant, row.lang, row.text)

    def finish(self) -> None:
        for each in self._described:
            names = self.rare_names(each.entry)
            for lang, title in each.titles.items():
                body, query = masked(each.bodies[lang], names), masked(title, names)
                self._document("titles", each.entry, lang, body, len(words(body)))
                if each.entry.split != "train" and len(words(query)) >= LEAST_QUERY:
                    name = f"{each.entry.id}?"
                    self._query("titles", each.entry, name, lang, query, [each.entry.id])
        planted.write(self.tables, self._needles)

    def rare_names(self, entry: Entry) -> list[str]:
        """Return the names of a package that few descriptions have, once all entries were added."""
        return [
            name
            for name in entry.meta["names"]
            if len(name) > 1 and self._frequency[name] <= MOST_COMMON
        ]

    def _document(self, task: str, entry: Entry, lang: str, text: str, count: int) -> None:
        self.tables.write(
            "documents",
            task=task,
            id=entry.id,
            lang=lang,
            text=text,
            source=entry.source,
            split=entry.split,
            words=count,
        )

    def _query(
        self, task: str, entry: Entry, name: str, lang: str, text: str, relevant: list[str]
    ) -> None:
        self.tables.write(
            "queries",
            task=task,
            id=name,
            lang=lang,
            text=text,
            relevant=relevant,
            source=entry.source,
            split=entry.split,
        )


def masked(text: str, names: Sequence[str]) -> str:
    """Replace names in a text, in upper or lower case."""
    if not names:
        return text
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    return re.sub(rf"(?<!\w)({'|'.join(longest)})(?!\w)", MASK, text, flags=re.IGNORECASE)
