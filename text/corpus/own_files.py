"""Reads files of one's own: parquet, TSV, CSV or JSON lines, and folders in MTEB's layout.

What a file holds is said by its columns:

- ``id, lang, text``: texts; lines with the same id, one after the other, are translations;
- ``text_a, text_b``: pairs, with ``score`` (0 … 1) graded pairs;
- ``sentence1, sentence2, score``: graded pairs as STS-B has them, 0 … 5 or 0 … 1;
- ``queries.jsonl``, ``corpus.jsonl`` and ``qrels/SPLIT.tsv`` in one folder: a retrieval task.

Languages are those of the columns ``lang``, ``lang_a`` and ``lang_b`` or ``langs`` (``en-de``),
else those in the file's name (``sts.en-de.tsv``), else the first one of the corpus. ``split`` and
``group`` are columns, too; a file's name may have the split (``test.tsv``). What is in a language
that the corpus does not have is left out, and counted.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from feature_store.wording import worded
from text.corpus import names
from text.corpus.duplicates import words
from text.corpus.entry import LANGUAGE, Entry, Row, Split
from text.corpus.errors import CorpusError
from text.corpus.lines import ENDINGS, Line, lines_of
from text.corpus.names import SPLITS as _SPLITS
from text.corpus.split import SPLITS, hash_of

TINY = Path(__file__).with_name("tiny")  # a folder of files, for tests and the smallest preset
_MTEB = ("queries.jsonl", "corpus.jsonl")
_MOST_STS = 5.0
_NAMES = ("id", "label", "group", "split")  # may be numbers
_LANGS = ("lang", "lang_a", "lang_b")
_OPTIONAL = {"group", "split", "langs", *_LANGS}
_TYPES = {bool: "true or false", int: "a number", float: "a number", list: "a list", bytes: "bytes"}


def source_of(folder: Path) -> str:
    return folder.resolve().name


def read(
    folder: Path,
    languages: Sequence[str],
    files: list[dict[str, str]],
    refused: Counter[tuple[str, str]],
) -> Iterator[Entry]:
    """Yield entries of all files below the folder; appends each file's digest to ``files``, and
    counts in ``refused`` by (source, reason) what is in other languages.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder")
    wanted = _Wanted(folder, languages, refused)
    found = _files_of(folder, refused)
    tasks = {p.parent for p in found if p.name == _MTEB[0]}
    for path in found:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise CorpusError(f"{path}: not readable: {worded(error)}") from error
        files.append({"package": str(path.relative_to(folder)), "version": "", "sha256": digest})
        if path.parent not in tasks and path.parent.parent not in tasks:
            yield from _File(path, wanted).entries()
    for task in sorted(tasks):
        yield from _retrieval(task, wanted)


def _files_of(folder: Path, refused: Counter[tuple[str, str]]) -> list[Path]:
    """List the files at any depth; count in ``refused`` those of other endings that are not hidden.
    Raises CorpusError for folders that cannot be listed, names that are not UTF-8, and where there
    are none.
    """

    def unreadable(error: OSError) -> None:
        raise CorpusError(f"{error.filename}: the folder cannot be read: {worded(error)}")

    found = []
    for parent, _, files in os.walk(folder, onerror=unreadable):
        for path in (Path(parent, name) for name in files):
            ending = path.suffix.lower()
            if ending in ENDINGS:
                found.append(path)
            elif not path.name.startswith((".", "_")):
                why = f"for the ending {ending}" if ending else "for want of an ending"
                refused[source_of(folder), f"not read, {why}"] += 1
    if not found:
        raise CorpusError(f"{folder}: no file ends in {', '.join(ENDINGS)}")
    for path in found:
        name = f"{source_of(folder)}/{path.relative_to(folder)}"
        try:
            name.encode()
        except UnicodeEncodeError:
            raise CorpusError(f"{path}: the name {name!a} is not UTF-8; rename it") from None
    return sorted(found)


class _Wanted:
    """The languages of a corpus, and what of a folder is left out for its language."""

    def __init__(
        self, folder: Path, languages: Sequence[str], refused: Counter[tuple[str, str]]
    ) -> None:
        self.folder, self.source, self.languages = folder, source_of(folder), languages
        self._refused = refused

    def has(self, path: Path, *langs: str) -> bool:
        """Tell whether a text or pair of a file is in the languages; count it if not."""
        other = next((lang for lang in langs if lang not in self.languages), None)
        if other is not None:
            name = path.relative_to(self.folder)
            self._refused[self.source, f"in {other} ({name}), not among the languages"] += 1
        return other is None


class _File:
    """One file. What is not a column is taken from its name."""

    def __init__(self, path: Path, wanted: _Wanted) -> None:
        self.path, self.source, self.languages = path, wanted.source, wanted.languages
        self.named, self.split, _ = names.read(path.stem, wanted.languages)
        self._wanted = wanted

    def entries(self) -> Iterator[Entry]:
        lines = lines_of(self.path)
        first = next(lines, None)
        if first is None:
            return
        kinds: list[tuple[tuple[str, ...], Callable[[Iterator[Line]], Iterator[Entry]]]] = [
            (("id", "text"), self._texts),
            (("text_a", "text_b", "score"), self._graded),
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
        """Yield lines with their numbers, each with a text in every column that is needed."""
        known = _OPTIONAL.union(columns, ["label"] if "id" in columns else []) - {"score"}
        for number, line in enumerate(chain([first], lines), start=1):
            row = f"{self.path}, row {number}"
            for column in known:
                line[column] = _cell(line.get(column), column, row)
            for column in columns:
                if line.get(column) in (None, ""):
                    raise CorpusError(f"{row}: no {column}")
            yield line | {"#": number}

    def _texts(self, lines: Iterator[Line]) -> Iterator[Entry]:
        seen: set[int] = set()
        for key, group in groupby(lines, lambda line: line["id"]):
            same, rows = list(group), dict[str, Row]()
            if hash_of(key) in seen:
                raise CorpusError(
                    f"{self._row(same[0])}: id {key!r} again; lines of one id follow one another"
                )
            seen.add(hash_of(key))
            for line in same:
                lang = line.get("lang") or (self.named or self.languages)[0]
                if lang in rows:
                    raise CorpusError(f"{self._row(line)}: id {key!r} has two texts in {lang}")
                rows[lang] = Row("text", lang, line["text"])
            last = same[-1]
            meta = {"labels": {"label": last["label"]}} if last.get("label") else {}
            family = f"{self.source}:{last.get('group') or key}"
            if own := [row for lang, row in rows.items() if self._wanted.has(self.path, lang)]:
                yield Entry(self.source, key, family, own, self._split(last), meta)

    def _pairs(self, lines: Iterator[Line]) -> Iterator[Entry]:
        for line in lines:
            if line.get("score") is not None:
                raise CorpusError(f"{self._row(line)}: has a score, and the first row has none")
            yield self._pair(line, line["text_a"], line["text_b"], None)

    def _graded(self, lines: Iterator[Line]) -> Iterator[Entry]:
        for line in lines:
            score = self._score(line)
            if not 0 <= score <= 1:
                raise CorpusError(f"{self._row(line)}: score {score:g} is not in 0 … 1")
            yield self._pair(line, line["text_a"], line["text_b"], score)

    def _sts(self, lines: Iterator[Line]) -> Iterator[Entry]:
        rows = list(lines)
        scores = [self._score(line) for line in rows]
        most = _MOST_STS if max(scores) > 1 else 1.0
        for line, score in zip(rows, scores, strict=True):
            if not 0 <= score <= most:
                raise CorpusError(f"{self._row(line)}: score {score:g} is not in 0 … {most:g}")
            yield self._pair(line, line["sentence1"], line["sentence2"], score / most)

    def _pair(self, line: Line, a: str, b: str, score: float | None) -> Entry:
        given = line["langs"].split("-") if line.get("langs") else []
        if len(given) > 2 or not all(map(LANGUAGE.fullmatch, given)):
            raise CorpusError(f"{self._row(line)}: langs {line['langs']!r}: must be as en-de")
        named = given or self.named or [self.languages[0]]
        lang_a, lang_b = line.get("lang_a") or named[0], line.get("lang_b") or named[-1]
        # As a row may be in a language of no interest, an entry may be without rows.
        wanted = self._wanted.has(self.path, lang_a, lang_b)
        rows = [Row("a", lang_a, a), Row("b", lang_b, b)] if wanted else []
        group = line.get("group") or f"{hash_of(' '.join(words(a))):016x}"
        meta = {} if score is None else {"score": score}
        name = f"{self.path.stem}#{line['#']}"
        return Entry(self.source, name, f"{self.source}:{group}", rows, self._split(line), meta)

    def _score(self, line: Line) -> float:
        return _number(line["score"], self._row(line))

    def _split(self, line: Line) -> Split | None:
        given = line.get("split")
        if not given:
            return self.split
        if given not in _SPLITS:
            raise CorpusError(f"{self._row(line)}: split {given!r} is none of {', '.join(_SPLITS)}")
        return _SPLITS[given]

    def _row(self, line: Line) -> str:
        return f"{self.path}, row {line['#']}"


def _number(value: Any, row: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise CorpusError(f"{row}: score {value!r} is no number")
    return number


def _cell(value: Any, column: str, row: str) -> str | None:
    """Return a cell as text, None where it is empty or NaN, pandas' missing value."""
    if value is None or value == "" or value != value:
        return None
    if column in _NAMES and type(value) in (int, float):
        return str(value)
    if not isinstance(value, str):
        raise CorpusError(f"{row}: {column} is {_TYPES.get(type(value), 'an object')}, not text")
    if column in _LANGS and not LANGUAGE.fullmatch(value):
        raise CorpusError(f"{row}: {column} {value!r}: must be a language code, such as en")
    return value


def _retrieval(folder: Path, wanted: _Wanted) -> Iterator[Entry]:
    """Read a task in MTEB's (BEIR's) layout, called as its folder without language and split."""
    source = wanted.source
    named, _, task = names.read(folder.name, wanted.languages)
    lang, lang_documents = (named or wanted.languages)[0], (named or wanted.languages[:1])[-1]
    relevant: dict[Split, dict[str, list[str]]] = {split: defaultdict(list) for split in SPLITS}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        if path.stem not in _SPLITS:
            raise CorpusError(f"{path}: not called as a split: {', '.join(_SPLITS)}")
        for number, line in enumerate(lines_of(path), start=1):
            query, document, score = (line.get(c) for c in ("query-id", "corpus-id", "score"))
            if query is None or document is None or score is None:
                raise CorpusError(f"{path}, row {number}: lacks query-id, corpus-id or score")
            if _number(score, f"{path}, row {number}") > 0:
                relevant[_SPLITS[path.stem]][query].append(document)
    if not any(relevant.values()):
        raise CorpusError(f"{folder}: no relevant documents in qrels/SPLIT.tsv")
    held = {document: split for split in reversed(SPLITS)
            for found in relevant[split].values() for document in found}  # fmt: skip
    known: set[str] = set()
    for document in _records(folder / _MTEB[1]):
        name = document["_id"]
        known.add(name)
        text = "\n".join(filter(None, (document.get("title"), document["text"])))
        rows = [Row("document", lang_documents, text)]
        group = f"{source}:{task}:{name}"
        if wanted.has(folder, lang, lang_documents):
            yield Entry(source, name, group, rows, held.get(name, "train"), {"task": task})
    answered = 0
    for question in _records(folder / _MTEB[0]):
        for split in SPLITS:
            if found := relevant[split].get(question["_id"]):
                answered += not known.isdisjoint(found)
                group = f"{source}:{task}:{found[0]}"
                meta = {"task": task, "relevant": list(dict.fromkeys(found))}  # each once
                rows = [Row("query", lang, question["text"])]
                if wanted.has(folder, lang, lang_documents):
                    yield Entry(source, question["_id"], group, rows, split, meta)
    if not answered:
        raise CorpusError(
            f"{folder}: qrels/SPLIT.tsv has no query of {_MTEB[0]} with a document of {_MTEB[1]}"
        )


def _records(path: Path) -> Iterator[Mapping[str, str]]:
    seen: set[str] = set()
    for number, line in enumerate(lines_of(path), start=1):
        row = f"{path}, row {number}"
        for name in ("_id", "text", "title"):
            line[name] = _cell(line.get(name), name, row)
            if line[name] is None and name != "title":
                raise CorpusError(f"{row}: no {name}")
        if line["_id"] in seen:
            raise CorpusError(f"{row}: _id {line['_id']!r} again")
        seen.add(line["_id"])
        yield line
