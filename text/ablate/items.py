"""Restricts a corpus to the items of an evaluation: a part of fixed size of each task.

The part follows from the corpus and the numbers alone, so that every arm has the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from text.corpus.corpus import Corpus, Retrieval
from text.corpus.split import hash_of


@dataclass(frozen=True, slots=True)
class Items(Corpus):
    """A corpus with at most so many graded pairs, queries and documents of a task."""

    most_graded: int
    most_queries: int
    most_documents: int

    def graded(
        self, lang_a: str | None = None, lang_b: str | None = None, split: str | None = None
    ) -> pa.Table:
        """Return the first pairs of every two languages, in an order by hash: the same packages."""
        graded = Corpus.graded(self, lang_a, lang_b, split)
        parts = []
        for langs in graded.group_by(["lang_a", "lang_b"]).aggregate([]).to_pylist():
            own = graded
            for name, lang in langs.items():
                own = own.filter(pc.equal(own[name], lang))
            order = sorted(range(len(own)), key=lambda row: hash_of(f"graded {row}"))
            parts.append(own.take(sorted(order[: self.most_graded])))
        return pa.concat_tables(parts) if parts else graded

    def retrieval(
        self, task: str, lang: str, lang_documents: str | None = None, split: str = "test"
    ) -> Retrieval:
        """Return queries in an order by hash; documents that answer them, then others."""
        found = Corpus.retrieval(self, task, lang, lang_documents, split)
        queries = _first(found.queries, self.most_queries, set())
        answers = {id_ for ids in queries["relevant"].to_pylist() for id_ in ids}
        documents = _first(found.documents, self.most_documents, answers)
        return Retrieval(task, lang, found.lang_documents, queries, documents)


def _first(table: pa.Table, most: int, before: set[str]) -> pa.Table:
    """Return the rows of the ids ``before``, and others in an order by hash, up to ``most``."""
    ids = table["id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda row: (ids[row] not in before, hash_of(ids[row])))
    kept = max(most, sum(id_ in before for id_ in ids))
    return table.take(pa.array(sorted(order[:kept]), pa.int64()))
