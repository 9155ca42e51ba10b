"""Collects the entries of all sources on disk, then gives them back with a verdict on each text.

In memory are about 160 bytes a text: hash and MinHash signature. The texts are in one parquet file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from text.corpus.duplicates import Verdict, judge, signatures, words
from text.corpus.entry import Entry, Row
from text.corpus.split import SPLITS, hash_of, split_of

BATCH = 8192
LEAST_WORDS = 3  # of a text; titles, keywords, queries and words may be shorter
LEAST_COMPARED = 4  # words: shorter texts are compared for equality alone
_SHORT = ("title", "keyword", "query", "word")
_LINES = ("page", "document")  # keep their line ends
_TRANSLATED = ("text", "title", "body", "word")
_RANKS = {"keyword": 1, "query": 1, "page": 2, "document": 2}  # texts of their own come first
_OTHERS = "0"
_NAMES = ("source", "id", "group", "split", "part", "lang", "text")
_SCHEMA = pa.schema(
    [
        ("entry", pa.int64()),
        *((name, pa.string()) for name in _NAMES),
        ("words", pa.int32()),
        ("meta", pa.binary()),
    ]
)


class Judged(NamedTuple):
    """A text of an entry, its number of words, what became of it, and the text that it repeats:
    a number that equal and near texts share.
    """

    row: Row
    words: int
    verdict: Verdict
    repeated: int


class Collection:
    """Texts of all sources, in order. ``refused`` counts by (source, reason) what is left out;
    ``lengths`` counts texts by (language, whether they have words enough).
    """

    def __init__(self, path: Path) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()
        self.lengths: Counter[tuple[str, bool]] = Counter()
        self._path = path
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd")
        self._entries = 0
        self._length = 0
        self._rows: list[tuple[Any, ...]] = []
        self._words: list[list[str]] = []
        self._numbers: list[tuple[int, int, int, int, bool]] = []
        self._lines: set[int] = set()  # of pages of valid and test
        self._done: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []

    def __len__(self) -> int:
        return self._length

    def add(self, entry: Entry) -> None:
        """Add the entry's texts, without those that are too short or untranslated."""
        split = entry.split or split_of(entry.group)
        first: dict[str, str] = {}  # part → its normalised text in its first language
        meta = orjson.dumps(entry.meta) if entry.meta else None
        for part, lang, given in entry.rows:
            text = given if part in _LINES else " ".join(given.split())
            found = words(text)
            joined = " ".join(found)
            enough = len(found) >= (1 if part in _SHORT else LEAST_WORDS)
            self.lengths[lang, enough] += part not in _SHORT
            if not enough:
                self.refused[entry.source, "too short"] += 1
                continue
            if part in _TRANSLATED and part in first and first[part] == joined:
                self.refused[entry.source, "untranslated"] += 1
                continue
            first.setdefault(part, joined)
            number = self._entries
            space = _space(entry.source, part)
            if part == "page" and split != "train":
                lines = (line for line in text.split("\n") if len(words(line)) >= LEAST_WORDS)
                self._lines.update(line_key(lang, line) for line in lines)
            where = (entry.source, entry.id, entry.group, split, part, lang)
            self._rows.append((number, *where, text, len(found), meta))
            self._words.append(found)
            self._numbers.append(
                (
                    hash_of(f"{lang}\0{space}\0{joined}"),
                    hash_of(f"{lang}\0{space}"),
                    SPLITS.index(split),
                    _RANKS.get(part, 0),
                    part not in _SHORT and len(found) >= LEAST_COMPARED,
                )
            )
            meta = None
            self._length += 1
        self._entries += 1
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = (
            [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
            if self._rows
            else [pa.array([], f.type) for f in _SCHEMA]
        )
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
        numbers = np.array(self._numbers, np.uint64).reshape(-1, 5)
        self._done.append((numbers, signatures(self._words)))
        self._rows, self._words, self._numbers = [], [], []

    def judge(self) -> Set[int]:
        """Judge all texts; nothing is added any more. Returns the keys of those held out,
        and of the lines of held-out pages.
        """
        self._flush()
        self._writer.close()
        numbers = np.concatenate([done[0] for done in self._done])
        minhashes = np.concatenate([done[1] for done in self._done])
        self._done.clear()
        keys, spaces, splits, ranks, comparable = numbers.T.copy()
        splits = splits.astype(np.uint8)
        self._verdicts, self._repeated = judge(
            keys, spaces, minhashes, splits, ranks.astype(np.uint8), comparable.astype(bool)
        )
        lines = np.array(sorted(self._lines), np.uint64)
        training = splits == SPLITS.index("train")
        self._verdicts[training & np.isin(keys, lines)] = Verdict.RECURS
        return self._lines.union(keys[splits < SPLITS.index("train")].tolist())

    def entries(self) -> Iterator[tuple[Entry, list[Judged]]]:
        """Yield every entry again, in order, with a verdict on each of its texts."""
        rows = zip(self._read(), self._verdicts.tolist(), self._repeated.tolist(), strict=True)
        for _, group in groupby(rows, lambda each: cast("int", each[0][0])):
            yield self._entry(list(group))

    def _read(self) -> Iterator[tuple[Any, ...]]:
        for batch in pq.ParquetFile(self._path).iter_batches(BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _entry(self, rows: list[Any]) -> tuple[Entry, list[Judged]]:
        (_, source, id_, group, split, *_), _, _ = rows[0]
        judged = []
        for (*_, part, lang, text, count, _), verdict, repeated in rows:
            judged.append(Judged(Row(part, lang, text), count, Verdict(verdict), repeated))
        meta: dict[str, Any] = next((orjson.loads(m) for (*_, m), _, _ in rows if m), {})
        return Entry(source, id_, group, [each.row for each in judged], split, meta), judged


def _space(source: str, part: str) -> str:
    """Name what a text is compared with: pages with pages, words with words of their source, all
    others with one another.
    """
    return f"word {source}" if part == "word" else "1" if part == "page" else _OTHERS


def line_key(lang: str, line: str) -> int:
    """Return the key that a line within a page has as a text of its own."""
    return hash_of(f"{lang}\0{_OTHERS}\0{' '.join(words(line))}")
