"""Reads files of one's own: parquet, TSV, CSV or JSON lines, and folders in MTEB's layout.

What a file holds is said by its columns:

- ``id, lang, text``: texts; lines with the same id, one after the other, are translations;
- ``text_a, text_b``: pairs, with ``score`` (0 … 1) graded pairs;
- ``sentence1, sentence2, score``: graded pairs as STS-B has them, 0 … 5 or 0 … 1;
- ``queries.jsonl``, ``corpus.jsonl`` and ``qrels/SPLIT.tsv`` in one folder: a retrieval task.

Languages are those of the columns ``lang``, ``lang_a`` and ``lang_b`` or ``langs`` (``en-de``),
else those in the file's name (``sts.en-de.tsv``), else the first one of the corpus. ``split`` and
``group`` are columns, too; a file's name may have the split (``test.tsv``).
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from text.corpus.duplicates import words
from text.corpus.entry import Entry, Row, Split
from text.corpus.errors import CorpusError
from text.corpus.split import SPLITS, hash_of

TINY = Path(__file__).with_name("tiny")  # a folder of files, for tests and the smallest preset
_SPLITS: dict[str, Split] = {
    "train": "train", "dev": "valid", "valid": "valid", "validation": "valid", "test": "test"
}  # fmt: skip
_ENDINGS = (".parquet", ".tsv", ".csv", ".jsonl")
_MTEB = ("queries.jsonl", "corpus.jsonl")
_MOST_STS = 5.0
Line = dict[str, Any]


def source_of(folder: Path) -> str:
    return folder.resolve().name


def read(folder: Path, languages: Sequence[str], files: list[dict[str, str]]) -> Iterator[Entry]:
    """Entries of all files below the folder; appends each file's digest to ``files``."""
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder")
    source = source_of(folder)
    found = sorted(p for p in folder.rglob("*") if p.suffix in _ENDINGS and p.is_file())
    if not found:
        raise CorpusError(f"{folder}: no file ends in {', '.join(_ENDINGS)}")
    tasks = {p.parent for p in found if p.name == _MTEB[0]}
    for path in found:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append({"package": str(path.relative_to(folder)), "version": "", "sha256": digest})
        if path.parent not in tasks and path.parent.parent not in tasks:
            yield from _File(path, source, languages).entries()
    for task in sorted(tasks):
        yield from _retrieval(task, source, languages)


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file by column. Raises CorpusError, with the file and the line."""
    try:
        match path.suffix:
            case ".parquet":
                for batch in pq.ParquetFile(path).iter_batches(8192):
                    yield from batch.to_pylist()
            case ".jsonl":
                with path.open("rb") as file:
                    for number, line in enumerate(file, start=1):
                        if line.strip():
                            yield _object(line, path, number)
            case ending:
                with path.open(encoding="utf-8-sig", newline="") as text:
                    dialect = _Tabs if ending == ".tsv" else csv.excel
                    yield from map(dict, csv.DictReader(text, dialect=dialect))
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: not readable: {error}") from error


def _object(line: bytes, path: Path, number: int) -> Line:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise CorpusError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CorpusError(f"{path}, line {number}: no JSON object")
    return found


class _Tabs(csv.excel_tab):
    """TSV as STS-B has it: quotation marks are part of the text."""

    quoting = csv.QUOTE_NONE


class _File:
    """One file. What is not a column is taken from its name."""

    def __init__(self, path: Path, source: str, languages: Sequence[str]) -> None:
        self.path, self.source, self.languages = path, source, languages
        self.named, self.split = _named(path.stem, languages)

    def entries(self) -> Iterator[Entry]:
        lines = lines_of(self.path)
        first = next(lines, None)
        if first is None:
            return
        kinds: list[tuple[tuple[str, ...], Callable[[Iterator[Line]], Iterator[Entry]]]] = [
            (("id", "text"), self._texts),
            (("text_a", "text_b"), self._pairs),
            (("sentence1", "sentence2", "score"), self._sts),
        ]
        for columns, reader in kinds:
            if set(columns) <= first.keys():
                yield from reader(self._checked(first, lines, columns))
                return
        raise CorpusError(
            f"{self.path}: has the columns {', '.join(map(str, first))}; needed are "
            "id, lang, text, or text_a, text_b, or sentence1, sentence2, score"
        )

    def _checked(
        self, first: Line, lines: Iterator[Line], columns: Sequence[str]
    ) -> Iterator[Line]:
        """Lines with their numbers, each with a text in every column that is needed."""
        number = 1
        line: Line | None = first
        while line is not None:
            for column in columns:
                value = line.get(column)
                if value is None or value == "":
                    raise CorpusError(f"{self.path}, row {number}: no {column}")
                if column != "score":
                    line[column] = str(value)
            yield line | {"#": number}
            number += 1
            line = next(lines, None)

    def _texts(self, lines: Iterator[Line]) -> Iterator[Entry]:
        for key, same in groupby(lines, lambda line: line["id"]):
            rows, meta, last = [], {}, {}
            for last in same:
                lang = last.get("lang") or (self.named or self.languages)[0]
                if lang in self.languages:
                    rows.append(Row("text", lang, last["text"]))
            if label := last.get("label"):
                meta = {"labels": {"label": str(label)}}
            group = f"{self.source}:{last.get('group') or key}"
            if rows:
                yield Entry(self.source, key, group, rows, self._split(last), meta)

    def _pairs(self, lines: Iterator[Line]) -> Iterator[Entry]:
        for line in lines:
            score = line.get("score")
            scale = None if score is None or score == "" else self._score(line)
            if scale is not None and not 0 <= scale <= 1:
                raise CorpusError(f"{self._row(line)}: score {score} is not in 0 … 1")
            yield self._pair(line, line["text_a"], line["text_b"], scale)

    def _sts(self, lines: Iterator[Line]) -> Iterator[Entry]:
        rows = list(lines)
        scores = [self._score(line) for line in rows]
        most = _MOST_STS if max(scores) > 1 else 1.0
        for line, score in zip(rows, scores, strict=True):
            if not 0 <= score <= most:
                raise CorpusError(f"{self._row(line)}: score {score:g} is not in 0 … {most:g}")
            yield self._pair(line, line["sentence1"], line["sentence2"], score / most)

    def _pair(self, line: Line, a: str, b: str, score: float | None) -> Entry:
        given = str(line.get("langs") or "").split("-") if line.get("langs") else []
        named = given or self.named or [self.languages[0]]
        lang_a = str(line.get("lang_a") or named[0])
        lang_b = str(line.get("lang_b") or named[-1])
        # As a row may be in a language of no interest, an entry may be without rows.
        wanted = {lang_a, lang_b} <= set(self.languages)
        rows = [Row("a", lang_a, a), Row("b", lang_b, b)] if wanted else []
        group = line.get("group") or f"{hash_of(' '.join(words(a))):016x}"
        meta = {} if score is None else {"score": score}
        name = f"{self.path.stem}#{line['#']}"
        return Entry(self.source, name, f"{self.source}:{group}", rows, self._split(line), meta)

    def _score(self, line: Line) -> float:
        try:
            score = float(line["score"])
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise CorpusError(f"{self._row(line)}: score {line['score']!r} is no number")
        return score

    def _split(self, line: Line) -> Split | None:
        given = line.get("split")
        if not given:
            return self.split
        if given not in _SPLITS:
            raise CorpusError(f"{self._row(line)}: split {given!r} is none of {', '.join(_SPLITS)}")
        return _SPLITS[given]

    def _row(self, line: Line) -> str:
        return f"{self.path}, row {line['#']}"


def _named(stem: str, languages: Sequence[str]) -> tuple[list[str], Split | None]:
    """Languages and split that a name has: ``sts.en-de.test`` → en, de, test."""
    parts = re.split(r"[._\- ]", stem)
    split = next((_SPLITS[part] for part in parts if part in _SPLITS), None)
    return [part for part in parts if part in languages][:2], split


def _retrieval(folder: Path, source: str, languages: Sequence[str]) -> Iterator[Entry]:
    """A task in MTEB's (BEIR's) layout, called as its folder without language and split."""
    named, _ = _named(folder.name, languages)
    lang, lang_documents = (named or [languages[0]])[0], (named or [languages[0]])[-1]
    parts = [p for p in re.split(r"[._\- ]", folder.name) if p not in (*languages, *_SPLITS)]
    task = "-".join(parts) or folder.name
    relevant: dict[Split, dict[str, list[str]]] = {split: defaultdict(list) for split in SPLITS}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        if path.stem not in _SPLITS:
            raise CorpusError(f"{path}: not called as a split: {', '.join(_SPLITS)}")
        for number, line in enumerate(lines_of(path), start=1):
            query, document, score = (line.get(c) for c in ("query-id", "corpus-id", "score"))
            if query is None or document is None or score is None:
                raise CorpusError(f"{path}, row {number}: lacks query-id, corpus-id or score")
            if float(score) > 0:
                relevant[_SPLITS[path.stem]][query].append(document)
    if not any(relevant.values()):
        raise CorpusError(f"{folder}: no relevant documents in qrels/SPLIT.tsv")
    held = {document: split for split in reversed(SPLITS)
            for found in relevant[split].values() for document in found}  # fmt: skip
    for document in _records(folder / "corpus.jsonl"):
        name = document["_id"]
        text = "\n".join(filter(None, (document.get("title"), document["text"])))
        rows = [Row("document", lang_documents, text)]
        group = f"{source}:{task}:{name}"
        yield Entry(source, name, group, rows, held.get(name, "train"), {"task": task})
    for question in _records(folder / "queries.jsonl"):
        for split in SPLITS:
            if found := relevant[split].get(question["_id"]):
                group = f"{source}:{task}:{found[0]}"
                meta = {"task": task, "relevant": found}
                rows = [Row("query", lang, question["text"])]
                yield Entry(source, question["_id"], group, rows, split, meta)


def _records(path: Path) -> Iterator[Mapping[str, str]]:
    for number, line in enumerate(lines_of(path), start=1):
        if not all(isinstance(line.get(name), str) and line[name] for name in ("_id", "text")):
            raise CorpusError(f"{path}, line {number}: lacks _id or text")
        yield line
