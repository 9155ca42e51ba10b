"""Reads a corpus: a folder of parquet tables and ``corpus.json``, which describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError

from feature_store.wording import worded
from text.corpus.errors import CorpusError
from text.corpus.tables import SCHEMAS

FILE = "corpus.json"
FORMAT = 1
AGAIN = "build the corpus again"


class _Table(BaseModel):
    sha256: str
    rows: int


class _Source(BaseModel):
    licence: str


class _About(BaseModel):
    """What is read of ``corpus.json``."""

    languages: list[str] = Field(min_length=1)
    tables: dict[str, _Table]
    sources: dict[str, _Source]
    counts: list[dict[str, Any]]
    refused: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A task: the queries of a split (id, text, relevant), and all documents (id, text, words)."""

    task: str
    lang: str
    lang_documents: str
    queries: pa.Table
    documents: pa.Table


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus on disk. Its methods return tables, with the columns of ``tables.SCHEMAS``.

    A table that is not the one that ``corpus.json`` describes is refused: what is made of a corpus
    names it by its digest. CorpusError.
    """

    folder: Path
    about: dict[str, Any]  # corpus.json
    _proved: set[str] = field(default_factory=set, compare=False, kw_only=True)  # tables

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder that ``corpus build`` wrote. Raises CorpusError."""
        if folder.is_file():
            raise CorpusError(f"{folder}: not a folder; give the corpus's folder")
        try:
            about = orjson.loads((folder / FILE).read_bytes())
        except FileNotFoundError:
            raise CorpusError(
                f"{folder}: no corpus: it has no {FILE}; python -m text corpus build writes one"
            ) from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise CorpusError(f"{folder / FILE}: not readable: {worded(error)}") from error
        found = about.get("format") if isinstance(about, dict) else None
        if found != FORMAT:
            raise CorpusError(f"{folder}: a corpus of format {found}, not {FORMAT}; build it again")
        try:
            _About.model_validate(about)
        except ValidationError as error:
            raise CorpusError(f"{folder / FILE}: {worded(error)}; {AGAIN}") from error
        return cls(folder, about)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.about["languages"])

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all tables: equal for equal contents."""
        tables = self.about["tables"]
        joined = "".join(tables[name]["sha256"] for name in sorted(tables))
        return hashlib.sha256(joined.encode()).hexdigest()

    def texts(self, lang: str | None = None, split: str | None = None) -> pa.Table:
        return self._read("texts", lang=lang, split=split)

    def pairs(
        self,
        lang_a: str | None = None,
        lang_b: str | None = None,
        split: str | None = None,
        kind: str | None = None,
    ) -> pa.Table:
        return self._read("pairs", lang_a=lang_a, lang_b=lang_b, split=split, kind=kind)

    def graded(
        self, lang_a: str | None = None, lang_b: str | None = None, split: str | None = None
    ) -> pa.Table:
        """Read graded pairs; row n of two languages has the packages of row n of two others."""
        return self._read("graded", lang_a=lang_a, lang_b=lang_b, split=split)

    def labels(
        self, task: str | None = None, lang: str | None = None, split: str | None = None
    ) -> pa.Table:
        return self._read("labels", task=task, lang=lang, split=split)

    def items(self, lang: str | None = None, split: str | None = None) -> pa.Table:
        """Read items with tags; those of an id are one item in several languages."""
        return self._read("items", lang=lang, split=split)

    def documents(self, task: str, lang: str | None = None, split: str | None = None) -> pa.Table:
        """Read the documents of a task; those of ``long`` belong to no queries."""
        return self._read("documents", task=task, lang=lang, split=split)

    def retrieval(
        self, task: str, lang: str, lang_documents: str | None = None, split: str = "test"
    ) -> Retrieval:
        """Read the queries of a split, and the documents of the task in ``lang_documents``.

        Queries whose relevant documents are not among them, in another language, are left out.
        """
        there = lang_documents or lang
        documents = self.documents(task, there)
        known = set(documents["id"].to_pylist())
        queries = self._read("queries", task=task, lang=lang, split=split)
        relevant: Sequence[Sequence[str]] = queries["relevant"].to_pylist()
        mask = pa.array([bool(known.intersection(ids)) for ids in relevant], pa.bool_())
        return Retrieval(task, lang, there, queries.filter(mask), documents)

    def tasks(self) -> tuple[str, ...]:
        """Return the names of the retrieval tasks."""
        column = self._read("queries")["task"]
        return tuple(sorted(column.unique().to_pylist()))

    def _read(self, table: str, **where: str | None) -> pa.Table:
        path = self.folder / f"{table}.parquet"
        filters = [(name, "=", value) for name, value in where.items() if value is not None]
        if not path.exists():
            raise CorpusError(f"{path}: not readable: no such file; {AGAIN}")
        try:
            self._prove(table, path)
            names = pq.read_schema(path).names
            if names != SCHEMAS[table].names:
                raise CorpusError(f"{path}: has the columns {', '.join(names)}; {AGAIN}")
            return pq.read_table(path, filters=filters or None)
        except (OSError, pa.ArrowException) as error:
            why = " ".join(worded(error).split())
            raise CorpusError(f"{path}: not readable: {why}; {AGAIN}") from error

    def _prove(self, table: str, path: Path) -> None:
        """Compare a table with its digest, once. CorpusError, OSError."""
        if table in self._proved:
            return
        known = self.about["tables"].get(table)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if known is None or found != known["sha256"]:
            raise CorpusError(f"{path}: is not the one that {FILE} describes; {AGAIN}")
        self._proved.add(table)
