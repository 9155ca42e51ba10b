"""Writes texts and pairs of an entry: translations, words, title → text, keyword → page, graded
pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from itertools import combinations

from text.corpus.collection import Judged, line_key
from text.corpus.duplicates import Verdict, words
from text.corpus.entry import TEXTS, Entry
from text.corpus.tables import Tables
from text.corpus.tasks import LEAST_QUERY, masked

LEAST = (3, 4)  # words of a pair: of its shorter and of its longer side
TRANSLATED = ("text", "title", "body")


class PairWriter:
    """Writes the rows of the tables ``texts``, ``pairs`` and, of given scores, ``graded``.

    ``pivot``: the language that titles and keywords of the others ask in, and the reverse.
    ``held_out``: keys of the texts of valid and test, which training pages are cleared of.
    """

    def __init__(
        self,
        tables: Tables,
        pivot: str,
        held_out: Set[int],
        refused: Counter[tuple[str, str]],
    ) -> None:
        self._tables = tables
        self._pivot = pivot
        self._named: list[tuple[Entry, str, Judged, Judged]] = []
        self._held_out = held_out
        self._refused = refused
        self._seen: set[tuple[int, int]] = set()  # pairs of texts, equal and near ones alike

    def add(self, entry: Entry, judged: Sequence[Judged]) -> None:
        scored = "score" in entry.meta
        for number, (row, count, verdict, _) in enumerate(judged):
            if row.part not in TEXTS:
                continue
            if verdict is not Verdict.KEPT:
                self._refused[entry.source, REASONS[verdict]] += 1
                continue
            name = f"{entry.source}:{entry.id}" + (f"/{number}" if number else "")
            self._tables.write(
                "texts",
                id=name,
                lang=row.lang,
                text=row.text,
                source=entry.source,
                group=entry.group,
                split=entry.split,
                words=count,
            )
        parts: dict[str, list[Judged]] = {}
        for each in judged:
            parts.setdefault(each.row.part, []).append(each)
        for part in TRANSLATED:
            for a, b in combinations(parts.get(part, []), 2):
                self._translation(entry, a, b)
        for a, b in combinations(parts.get("word", []), 2):
            if self._usable(entry, a, b):
                self._pair(entry, "word", a, b)
        documents = parts.get("body", []) + [
            self.cleared(entry, each) for each in parts.get("page", [])
        ]
        for document in documents:
            for kind in ("title", "keyword"):
                for query in parts.get(kind, []):
                    langs = (query.row.lang, document.row.lang)
                    if langs[0] == langs[1] or self._pivot in langs:
                        text = untitled(document, query) if kind == "title" else document
                        self._query(entry, kind, query, text)
        for a, b in zip(parts.get("a", []), parts.get("b", []), strict=False):
            if scored:
                self._graded(entry, a, b)
            elif self._usable(entry, a, b):
                self._pair(entry, "pair" if a.row.lang == b.row.lang else "translation", a, b)

    def finish(self, rare: Callable[[Entry], Sequence[str]]) -> None:
        """Write the pairs of packages, their names masked as in the task ``titles``."""
        for entry, kind, query, document in self._named:
            names = rare(entry)
            query, document = (
                each._replace(row=each.row._replace(text=masked(each.row.text, names)))
                for each in (query, document)
            )
            if len(words(query.row.text)) < LEAST_QUERY:
                self._refused[entry.source, "pair: too short"] += 1
            else:
                self._pair(entry, kind, query, document)

    def cleared(self, entry: Entry, page: Judged) -> Judged:
        """Return a page, in training without the lines that are texts of another split."""
        if entry.split != "train":
            return page
        row = page.row
        lines = [line for line in row.text.split("\n") if not self._held(row.lang, line)]
        text = "\n".join(lines)
        return page._replace(row=row._replace(text=text), words=len(words(text)))

    def _held(self, lang: str, line: str) -> bool:
        return line_key(lang, line) in self._held_out

    def _usable(self, entry: Entry, a: Judged, b: Judged) -> bool:
        """Refuse a pair that has a side in another split, or that an equal or near one preceded."""
        if Verdict.RECURS in (a.verdict, b.verdict):
            reason = REASONS[Verdict.RECURS]
        elif (a.repeated, b.repeated) in self._seen:
            reason = REASONS[max(a.verdict, b.verdict)]
        else:
            self._seen.add((a.repeated, b.repeated))
            return True
        self._refused[entry.source, f"pair: {reason}"] += 1
        return False

    def _translation(self, entry: Entry, a: Judged, b: Judged) -> None:
        if tuple(sorted((a.words, b.words))) < LEAST:
            self._refused[entry.source, "pair: too short"] += 1
        elif self._usable(entry, a, b):
            self._pair(entry, "translation", a, b)

    def _query(self, entry: Entry, kind: str, query: Judged, document: Judged) -> None:
        short = query.words < (LEAST[0] if kind == "title" else 1) or document.words < LEAST[1]
        if Verdict.RECURS in (query.verdict, document.verdict):
            self._refused[entry.source, f"pair: {REASONS[Verdict.RECURS]}"] += 1
        elif document.verdict is not Verdict.KEPT:
            self._refused[entry.source, f"pair: {REASONS[document.verdict]}"] += 1
        elif short:
            self._refused[entry.source, "pair: too short"] += 1
        elif "names" in entry.meta:
            self._named.append((entry, kind, query, document))
        else:
            self._pair(entry, kind, query, document)

    def _pair(self, entry: Entry, kind: str, a: Judged, b: Judged) -> None:
        self._tables.write(
            "pairs",
            text_a=a.row.text,
            text_b=b.row.text,
            lang_a=a.row.lang,
            lang_b=b.row.lang,
            source=entry.source,
            kind=kind,
            label=next(iter(entry.meta.get("labels", {}).values()), ""),
            group=entry.group,
            split=entry.split,
            words=a.words + b.words,
        )

    def _graded(self, entry: Entry, a: Judged, b: Judged) -> None:
        if Verdict.RECURS in (a.verdict, b.verdict):
            self._refused[entry.source, f"pair: {REASONS[Verdict.RECURS]}"] += 1
            return
        self._tables.write(
            "graded",
            text_a=a.row.text,
            text_b=b.row.text,
            lang_a=a.row.lang,
            lang_b=b.row.lang,
            source=entry.source,
            score=entry.meta["score"],
            group_a=entry.group,
            group_b=entry.group,
            split=entry.split,
        )


def untitled(document: Judged, title: Judged) -> Judged:
    """Return a document without its first line, if that is the title."""
    first, _, rest = document.row.text.partition("\n")
    if words(first) != words(title.row.text):
        return document
    row = document.row._replace(text=rest)
    return document._replace(row=row, words=document.words - title.words)


REASONS = {
    Verdict.DUPLICATE: "duplicate",
    Verdict.NEAR_DUPLICATE: "near-duplicate",
    Verdict.RECURS: "recurs in held-out texts",
}
