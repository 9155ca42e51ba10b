"""Reads and writes items' texts in tables: columns ``text_LANG``, and ``text`` of no language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from feature_store.descriptions import Description
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.texts import texts

TEXT = "text"
NO_LANGUAGE = "und"  # as BCP 47 has it
PREFIX = f"{TEXT}_"


def text_columns(columns: Sequence[str], features: Sequence[str]) -> list[str]:
    """Return the columns of texts: those that are no features."""
    names = (name for name in columns if name == TEXT or name.startswith(PREFIX))
    return [name for name in names if name not in features and name != PREFIX]


def language_of(column: str) -> str:
    return NO_LANGUAGE if column == TEXT else column.removeprefix(PREFIX)


def column_of(language: str) -> str:
    return TEXT if language == NO_LANGUAGE else PREFIX + language


def read_descriptions(arrays: Mapping[str, pa.Array], source: str) -> list[dict[str, str]]:
    """Read the texts of each row; null, empty and blank ones are missing. DataFileError."""
    rows: list[dict[str, str]] = []
    for name, array in arrays.items():
        kind, types = array.type, pa.types
        strings = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
        read = texts(array) if any(is_of(kind) for is_of in strings) else None
        if read is None:
            raise DataFileError(f"{source}: column {name}: holds {kind}, not texts")
        values, faults = read
        if faults:
            row, fault = next(iter(faults.items()))
            raise DataFileError(f"{source} row {row}: {name}: {fault}")
        rows = rows or [{} for _ in range(len(array))]
        for row, text in enumerate(values.to_pylist()):
            if text and not text.isspace():
                rows[row][language_of(name)] = text
    return rows


def written(descriptions: Sequence[Description], languages: Sequence[str]) -> list[pa.Array]:
    """Return the columns of these languages."""
    return [pa.array([each.get(name) for each in descriptions], pa.string()) for name in languages]
