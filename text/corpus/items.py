"""Makes the items of a corpus: packages, or texts with a class, with the tags that people gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from text.corpus.collection import Judged
from text.corpus.duplicates import Verdict
from text.corpus.entry import Entry
from text.corpus.tables import Tables


@dataclass
class ItemWriter:
    """Writes items, those with the same or nearly the same text once."""

    tables: Tables
    _written: set[int] = field(default_factory=set)

    def add(self, entry: Entry, parts: Mapping[str, Mapping[str, Judged]]) -> None:
        """Write an entry's text in each language that has one, if it has tags.

        A text is title and description, or the text itself; one that recurs in a split that counts
        before is left out. A class is a tag, too: ``section::games``.
        """
        labels = entry.meta.get("labels", {}).items()
        tags = [
            *entry.meta.get("tags", ()),
            *(f"{task}::{label}" for task, label in labels if label),
        ]
        titles = parts.get("title", {})
        for lang, found in (parts.get("body") or parts.get("text") or {}).items():
            if not tags or found.verdict is Verdict.RECURS or found.repeated in self._written:
                continue
            self._written.add(found.repeated)
            title = titles.get(lang)
            self.tables.write(
                "items",
                id=entry.id,
                lang=lang,
                text=f"{title.row.text}. {found.row.text}" if title else found.row.text,
                tags=sorted(tags),
                source=entry.source,
                split=entry.split,
            )
