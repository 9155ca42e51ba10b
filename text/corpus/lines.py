"""Reads the lines of a file of one's own by column: parquet, TSV, CSV or JSON lines."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.wording import worded
from text.corpus.errors import CorpusError

ENDINGS = (".parquet", ".tsv", ".csv", ".jsonl")
BATCH = 8192  # rows of a parquet file read at a time
MOST_CELL = 1 << 26  # characters of a cell: what a quotation mark that is not closed may swallow
# Columns that are read of a parquet file; others may be of types that Python has no values for.
COLUMNS = frozenset(
    ("id", "_id", "text", "title", "text_a", "text_b", "sentence1", "sentence2", "score", "label")
) | {"group", "split", "langs", "lang", "lang_a", "lang_b", "query-id", "corpus-id"}
Line = dict[str, Any]


def lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines of a file. Raises CorpusError, with the file and the place."""
    try:
        match path.suffix.lower():
            case ".parquet":
                yield from _parquet(path)
            case ".jsonl":
                yield from _json(path)
            case ending:
                yield from _cells(path, _Tabs if ending == ".tsv" else _Commas)
    except UnicodeDecodeError:
        raise CorpusError(f"{path}, line {_not_utf8(path)}: not UTF-8 text") from None
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path}: not readable: {' '.join(worded(error).split())}") from error


def _parquet(path: Path) -> Iterator[Line]:
    file, done = pq.ParquetFile(path), 0
    schema = file.schema_arrow
    _check_columns(path, schema.names)
    read = [name for name in schema.names if name in COLUMNS]
    for name in read:
        if pa.types.is_temporal(kind := schema.field(name).type):
            raise CorpusError(f"{path}: column {name} is {kind}, not text")
    if not read:  # the caller names the columns that are needed
        yield dict.fromkeys(schema.names)
        return
    for batch in file.iter_batches(BATCH, columns=read):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            where = f"rows {done + 1:,} to {done + len(batch):,}"
            raise CorpusError(f"{path}, {where}: a text that is not UTF-8") from None
        for row in rows:
            yield {name: row.get(name) for name in schema.names}
        done += len(rows)


def _json(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise CorpusError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(found, dict):
                raise CorpusError(f"{path}, line {number}: no JSON object")
            yield found


def _cells(path: Path, dialect: type[csv.Dialect]) -> Iterator[Line]:
    csv.field_size_limit(MOST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, dialect=dialect)
        try:
            _check_columns(path, reader.fieldnames or ())
            for line in reader:
                if None in line:  # cells beyond the header's
                    where = f"{path}, line {reader.reader.line_num}"
                    raise CorpusError(f"{where}: more cells than the header has columns")
                yield dict(line)
        except csv.Error as error:
            raise CorpusError(f"{path}, line {reader.reader.line_num}: {error}") from error


class _Tabs(csv.excel_tab):
    """TSV as STS-B has it: quotation marks are part of the text."""

    quoting = csv.QUOTE_NONE


class _Commas(csv.excel):
    """CSV; a quotation mark that is not closed would swallow the lines after it."""

    strict = True


def _check_columns(path: Path, names: Iterable[str]) -> None:
    if twice := [str(name) for name, count in Counter(names).items() if count > 1]:
        raise CorpusError(f"{path}: the column {twice[0]} is there twice")


def _not_utf8(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        numbered = enumerate(file, start=1)
        return next(n for n, line in numbered if line.decode("utf-8", "ignore").encode() != line)
