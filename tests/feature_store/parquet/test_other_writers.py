"""Files and folders as other programs write them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.__main__ import app
from feature_store.contract import Ids
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import HistoryParquet
from feature_store.parquet.items import ItemParquet
from feature_store.parquet.load import identity
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP, random_rows

COUNT = 6
IDS = np.arange(1, COUNT + 1)
ROWS = random_rows(SHOP, COUNT)
USERS: dict[int, list[int]] = {10: [1, 2], 11: [3, 4, 5], 12: [6]}


def whole(**changed: Any) -> dict[str, Any]:
    return item_columns(SHOP, IDS, ROWS) | changed


def items(path: Path) -> tuple[Ids, np.ndarray, list[str]]:
    batches = list(ItemParquet([path], SHOP).batches())
    ids, rows = np.concatenate([b.ids for b in batches]), np.concatenate([b.rows for b in batches])
    return ids, rows, [str(rejected) for batch in batches for rejected in batch.rejected]


def histories(path: Path) -> dict[int, list[int]]:
    found = {}
    for batch in HistoryParquet(path).batches():
        assert not batch.rejected
        found |= {user: history.tolist() for user, history in batch.histories.items()}
    return found


def user_table(**changed: Any) -> pa.Table:
    return pa.table({"user_id": [*USERS], "item_seq": [*USERS.values()]} | changed)


def spark_folder(path: Path, table: pa.Table) -> Path:
    path.mkdir()
    for part, start in enumerate(range(0, len(table), 2)):
        pq.write_table(table.slice(start, 2), path / f"part-{part:05}.snappy.parquet")
        (path / f".part-{part:05}.snappy.parquet.crc").write_bytes(b"crc\0")
    (path / "_SUCCESS").touch()
    (path / "_temporary").mkdir()
    (path / "_temporary" / "part-9.parquet").write_bytes(b"half")
    return path


def test_a_folder_of_parts_is_one_item_file(tmp_path: Path) -> None:
    ids, rows, rejected = items(spark_folder(tmp_path / "items.parquet", pa.table(whole())))
    assert ids.tolist() == IDS.tolist()
    assert rows.tobytes() == ROWS.tobytes()
    assert not rejected


def test_a_folder_of_parts_is_one_history_file(tmp_path: Path) -> None:
    folder = spark_folder(tmp_path / "h", user_table())
    assert histories(folder) == {user: items[::-1] for user, items in USERS.items()}


def test_a_later_part_supersedes_an_earlier_one(tmp_path: Path) -> None:
    twice = pa.concat_tables([user_table(), pa.table({"user_id": [10], "item_seq": [[9]]})])
    assert histories(spark_folder(tmp_path / "h", twice))[10] == [9]


def test_hive_partitions_are_read_and_their_names_are_columns(tmp_path: Path) -> None:
    table = user_table().append_column("dt", pa.array(["2026-11-01", "2026-11-02", "2026-11-02"]))
    pq.write_to_dataset(table, tmp_path / "by_day", partition_cols=["dt"])
    pq.write_to_dataset(user_table(), tmp_path / "by_user", partition_cols=["user_id"])
    expected = {user: items[::-1] for user, items in USERS.items()}
    assert histories(tmp_path / "by_day") == expected
    assert histories(tmp_path / "by_user") == expected


def test_the_largest_id_may_be_the_name_of_a_folder(tmp_path: Path) -> None:
    table = user_table(user_id=[2**63 - 1, *list(USERS)[1:]])
    pq.write_to_dataset(table, tmp_path / "by_user", partition_cols=["user_id"])
    assert histories(tmp_path / "by_user")[2**63 - 1] == next(iter(USERS.values()))[::-1]


def test_a_changed_part_is_another_source(tmp_path: Path) -> None:
    folder = spark_folder(tmp_path / "h", user_table())
    before = identity([folder], "")
    assert identity([folder], "") == before
    write(folder / "part-00000.snappy.parquet", {"user_id": [7], "item_seq": [[1]]})
    assert identity([folder], "") != before


def test_a_part_without_a_column_of_the_others_is_refused(tmp_path: Path) -> None:
    folder = spark_folder(tmp_path / "items", pa.table(whole()))
    odd = folder / "part-00002.snappy.parquet"
    write(odd, {name: column[:2] for name, column in whole().items() if name != "colours"})
    with pytest.raises(DataFileError, match=f"{odd}: column colours: only in"):
        ItemParquet([folder], SHOP)


def test_a_folder_without_parquet_files_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(DataFileError, match=f"{tmp_path}: the folder has no parquet files"):
        HistoryParquet(tmp_path)


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.null()), pa.large_list(pa.null())])
def test_lists_without_a_single_value_are_empty(tmp_path: Path, kind: pa.DataType) -> None:
    values = None if pa.types.is_null(kind) else []
    path = write(tmp_path / "i.parquet", whole(colours=pa.array([values] * COUNT, kind)))
    ids, rows, rejected = items(path)
    if values is None:
        assert rejected == [f"{path}: row {row}, column colours: null" for row in range(COUNT)]
    else:
        assert ids.tolist() == IDS.tolist()
        assert not rows["colours"].any()
        assert not rejected


def test_a_level_without_a_single_value_is_null_in_every_row(tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", whole(sku=pa.nulls(COUNT)))
    assert items(path)[2] == [f"{path}: row {row}, column sku: null" for row in range(COUNT)]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.decimal128(38, 0), pa.decimal128(20, 4), pa.decimal256(60, 0)),
        *(pa.float16(), pa.float32(), pa.float64()),
        pa.dictionary(pa.int8(), pa.int64()),
    ],
    ids=str,
)
def test_whole_ids_of_other_types_are_ids(tmp_path: Path, kind: pa.DataType) -> None:
    values = [Decimal(int(i)) for i in IDS] if pa.types.is_decimal(kind) else IDS.tolist()
    array = (
        pa.array(values).dictionary_encode()
        if pa.types.is_dictionary(kind)
        else pa.array(values).cast(kind)
    )
    ids, rows, rejected = items(write(tmp_path / "i.parquet", whole(item_id=array)))
    assert ids.tolist() == IDS.tolist()
    assert rows.tobytes() == ROWS.tobytes()
    assert not rejected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1.5, "1.5 is not a whole number"),
        (float("nan"), "NaN"),
        (float("inf"), "infinite"),
        (2.0**53 + 2, "floating point loses digits; write integers"),
        (-1.0, "-1 is negative"),
        (Decimal("1.5"), "1.5 is not a whole number"),
        (Decimal(2**70), "is beyond 63 bits"),
        (None, "null"),
    ],
)
def test_an_id_that_is_not_whole_costs_its_row(tmp_path: Path, value: Any, reason: str) -> None:
    kind = pa.decimal128(38, 1) if isinstance(value, Decimal) else pa.float64()
    first = Decimal(1) if isinstance(value, Decimal) else 1.0
    array = pa.array([first, value, *([first * n for n in range(3, COUNT + 1)])], kind)
    path = write(tmp_path / "i.parquet", whole(item_id=array))
    ids, _, rejected = items(path)
    assert ids.tolist() == [1, 3, 4, 5, 6]
    [why] = rejected
    assert why.startswith(f"{path}: row 1, column item_id: ")
    assert reason in why


def test_tensors_and_list_views_are_lists(tmp_path: Path) -> None:
    tensor = pa.fixed_shape_tensor(pa.float32(), (6,))
    storage = pa.array(ROWS["picture"].astype(np.float32).tolist(), pa.list_(pa.float32(), 6))
    changed = {
        "picture": pa.ExtensionArray.from_storage(tensor, storage),
        "colours": pa.array(ROWS["colours"].tolist(), pa.list_view(pa.int64())),
    }
    ids, rows, rejected = items(write(tmp_path / "i.parquet", whole(**changed)))
    assert ids.tolist() == IDS.tolist()
    assert rows.tobytes() == ROWS.tobytes()
    assert not rejected
    views = pa.array([[1, 2], None, []], pa.large_list_view(pa.int64()))
    path = write(tmp_path / "h.parquet", {"user_id": [1, 2, 3], "item_seq": views})
    [batch] = HistoryParquet(path).batches()
    assert {u: h.tolist() for u, h in batch.histories.items()} == {1: [2, 1], 3: []}
    assert [str(row) for row in batch.rejected] == [f"{path}: row 1, column item_seq: null"]


@pytest.mark.parametrize("name", ["item_id", "colours", "stock_level"])
def test_a_column_name_twice_is_one_line(tmp_path: Path, name: str) -> None:
    table = pa.table(whole())
    path = tmp_path / "i.parquet"
    twice = pa.table([*table.columns, table[name]], names=[*table.column_names, name])
    pq.write_table(twice, path)
    schema = tmp_path / "schema.yaml"
    schema.write_text(SHOP.to_yaml())
    store = f"lmdb://{tmp_path}/store"
    result = CliRunner().invoke(app, ["load", store, "--schema", str(schema), "--items", str(path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines() == [
        f"error: {path}: column {name}: the file has it 2 times; write it once"
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"item_id,colours\n1,2\n", "not a readable parquet file"),
        (None, "no such file or folder"),
    ],
)
def test_a_file_that_is_no_parquet_is_one_line(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "i.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataFileError, match=words) as caught:
        HistoryParquet(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
