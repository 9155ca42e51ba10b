"""Texts of items in tables: which types are texts, which values are missing, what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import read_items
from feature_store.parquet.text_columns import strings
from feature_store.schema import FeatureSchema
from text.content.items import ItemTexts

SCHEMA = """
name: shop
history_length: 4
descriptions: true
item:
  - {name: level, kind: categorical, vocabulary: 4, width: 4}
"""


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_null_empty_and_blank_texts_are_missing(kind: pa.DataType) -> None:
    array = pa.array(["hat", None, "", " \t\u00a0", " a ", "\ufeff", "\u200b\x00"], kind)
    assert strings(array, "column text") == ["hat", None, None, None, " a ", None, None]


def test_a_column_without_a_type_has_no_texts() -> None:
    assert strings(pa.nulls(2), "column text") == [None, None]


@pytest.mark.parametrize("values", [[1], [1.5], [b"hat"], [["hat"]]])
def test_a_column_of_another_type_is_refused(values: list[object]) -> None:
    array = pa.array(values)
    with pytest.raises(DataFileError, match=f"^column text: holds {array.type}, not texts$"):
        strings(array, "column text")


def test_a_text_that_is_not_unicode_is_refused_with_its_row_in_the_file(tmp_path: Path) -> None:
    """The row is beyond the first batch, and in the second file of a folder."""
    raw = pa.array([b"hat"] * 4 + [b"\xff"] + [b"hat"] * 3, pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    folder = tmp_path / "items"
    folder.mkdir()
    for part, texts in enumerate((pa.array(["hat"] * 8), text)):
        table = {"item_id": range(1 + 8 * part, 9 + 8 * part), "level": [1] * 8, "text": texts}
        pq.write_table(pa.table(table), folder / f"part-{part}.parquet")
    schema = FeatureSchema.from_yaml(SCHEMA, source="shop.yaml")
    fault = r"part-1\.parquet: column text: row 4: not Unicode text \(UTF-8\)$"
    with pytest.raises(DataFileError, match=fault):
        list(read_items([folder], schema, 3))
    fault = r"part-0\.parquet and 1 more: column text: row 12: not Unicode text \(UTF-8\)$"
    with pytest.raises(DataFileError, match=fault):
        list(ItemTexts(folder, [], []).batches(3))
