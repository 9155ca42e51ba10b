"""Reads and writes items' texts in tables: columns ``text_LANG``, and ``text`` of no language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from feature_store.descriptions import Description, is_blank
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


def strings(array: pa.Array, what: str, first: int = 0) -> list[str | None]:
    """Read texts; null, empty and blank ones are missing.

    ``what`` names the column and ``first`` the number of the array's first row. DataFileError.
    """
    kind, types = array.type, pa.types
    of_texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    read = texts(array) if any(is_of(kind) for is_of in of_texts) else None
    if read is None:
        raise DataFileError(f"{what}: holds {kind}, not texts")
    values, faults = read
    if faults:
        row, fault = next(iter(faults.items()))
        raise DataFileError(f"{what}: row {first + row}: {fault}")
    return [None if text is None or is_blank(text) else text for text in values.to_pylist()]


def read_descriptions(
    arrays: Mapping[str, pa.Array], source: str, first: int = 0
) -> list[dict[str, str]]:
    """Read the texts of each row, from row ``first`` of the source on. Raises DataFileError."""
    rows: list[dict[str, str]] = []
    for name, array in arrays.items():
        rows = rows or [{} for _ in range(len(array))]
        for row, text in enumerate(strings(array, f"{source}: column {name}", first)):
            if text is not None:
                rows[row][language_of(name)] = text
    return rows


def written(descriptions: Sequence[Description], languages: Sequence[str]) -> list[pa.Array]:
    """Return the columns of these languages."""
    return [pa.array([each.get(name) for each in descriptions], pa.string()) for name in languages]
