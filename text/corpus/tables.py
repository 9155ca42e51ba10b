"""Defines the tables of a corpus and writes them, a row at a time, counted by source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 8192  # of a row group

_TEXT = pa.string()
_WORDS = ("words", pa.int32())


def _texts(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, _TEXT) for name in names]


_PAIR = _texts("text_a", "text_b", "lang_a", "lang_b", "source")
SCHEMAS = {
    "texts": pa.schema([*_texts("id", "lang", "text", "source", "group", "split"), _WORDS]),
    "pairs": pa.schema([*_PAIR, *_texts("kind", "label", "group", "split"), _WORDS]),
    "graded": pa.schema([*_PAIR, ("score", pa.float64()), *_texts("group_a", "group_b", "split")]),
    "queries": pa.schema(
        [
            *_texts("task", "id", "lang", "text"),
            ("relevant", pa.list_(_TEXT)),
            *_texts("source", "split"),
        ]
    ),
    "documents": pa.schema([*_texts("task", "id", "lang", "text", "source", "split"), _WORDS]),
    "labels": pa.schema(_texts("task", "lang", "text", "label", "source", "split")),
    "items": pa.schema(
        [*_texts("id", "lang", "text"), ("tags", pa.list_(_TEXT)), *_texts("source", "split")]
    ),
}


class Tables:
    """Writers of all tables of a corpus, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()  # (table, source, languages, kind, split)
        self.words: Counter[tuple[str, ...]] = Counter()
        self._folder = folder
        self._buffers: dict[str, list[Mapping[str, Any]]] = {name: [] for name in SCHEMAS}
        self._writers = {
            name: pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
            for name, schema in SCHEMAS.items()
        }

    def write(self, table: str, **row: Any) -> None:
        buffer = self._buffers[table]
        buffer.append(row)
        languages = row["lang"] if "lang" in row else f"{row['lang_a']}-{row['lang_b']}"
        key = (table, row["source"], languages, row.get("kind") or row.get("task", ""))
        self.counts[*key, row["split"]] += 1
        self.words[*key, row["split"]] += row.get("words", 0)
        if len(buffer) >= ROWS:
            self._flush(table)

    def _flush(self, table: str) -> None:
        rows, schema = self._buffers[table], SCHEMAS[table]
        if rows:
            self._writers[table].write_table(pa.Table.from_pylist(rows, schema=schema))
            self._buffers[table] = []

    def close(self) -> dict[str, dict[str, Any]]:
        """End the files. Return rows, bytes and SHA-256 of each."""
        files = {}
        for name, writer in self._writers.items():
            self._flush(name)
            writer.close()
            path = self._folder / f"{name}.parquet"
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            rows = pq.read_metadata(path).num_rows
            files[name] = {"rows": rows, "bytes": path.stat().st_size, "sha256": digest}
        return files
