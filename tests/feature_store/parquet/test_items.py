"""Item files: what is taken, what is refused, and what is said about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import ItemParquet, ItemParquetBatch, read_items
from feature_store.schema import FeatureSchema
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP, random_rows

COUNT = 20
IDS = np.arange(COUNT) * 1_000_003 + 2**40
ROWS = random_rows(SHOP, COUNT)


def whole(**changed: Any) -> dict[str, Any]:
    return item_columns(SHOP, IDS, ROWS) | changed


def lists(column: str, row: int, value: Any) -> list[Any]:
    """The column with one row replaced."""
    values = [v.tolist() if isinstance(v, np.ndarray) else v for v in ROWS[column]]
    values[row] = value
    return values


def merged(batches: list[ItemParquetBatch]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([b.ids for b in batches]), np.concatenate([b.rows for b in batches])


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_every_item_is_read_as_the_store_keeps_it(tmp_path: Path, batch_size: int) -> None:
    path = write(tmp_path / "items.parquet", whole(), row_group_size=6)
    batches = list(read_items([path], SHOP, batch_size))
    ids, rows = merged(batches)
    assert (ids == IDS).all()
    assert rows.tobytes() == ROWS.tobytes()
    assert batches[-1].next_row == COUNT
    assert not any(batch.rejected for batch in batches)


@pytest.mark.parametrize("start", [0, 1, 5, 6, 13, 19, 20])
def test_reading_goes_on_from_any_row(tmp_path: Path, start: int) -> None:
    path = write(tmp_path / "items.parquet", whole(), row_group_size=6)
    batches = list(ItemParquet([path], SHOP).batches(4, start))
    assert [i for batch in batches for i in batch.ids] == IDS[start:].tolist()


def test_fixed_size_lists_are_lists_too(tmp_path: Path) -> None:
    flat = pa.array(ROWS["picture"].astype(np.float32).reshape(-1))
    fixed = pa.FixedSizeListArray.from_arrays(flat, 6)
    colours = pa.array(ROWS["colours"].tolist(), pa.large_list(pa.int64()))
    path = write(tmp_path / "items.parquet", whole(picture=fixed, colours=colours))
    _, rows = merged(list(read_items([path], SHOP, 7)))
    assert rows.tobytes() == ROWS.tobytes()


def test_the_challenges_padding_row_is_no_item(tmp_path: Path) -> None:
    schema = FeatureSchema.microlens()
    rows = random_rows(schema, 4)
    rows[0] = np.zeros((), schema.item_dtype)
    rows["item_id"] = np.arange(4)
    path = write(tmp_path / "item_info.parquet", item_columns(schema, rows["item_id"], rows))
    [batch] = read_items([path], schema)
    assert batch.ids.tolist() == [1, 2, 3]
    assert not batch.rejected


def test_an_item_of_id_0_is_an_item(tmp_path: Path) -> None:
    path = write(tmp_path / "items.parquet", whole(item_id=np.arange(COUNT)))
    [batch] = read_items([path], SHOP)
    assert batch.ids[0] == 0


def test_an_item_of_id_0_that_another_file_describes_is_an_item(tmp_path: Path) -> None:
    """In the first file alone it would be padding."""
    rows, ids = ROWS.copy(), np.arange(COUNT)
    for name in ("sku", "brand", "colours", "picture"):
        rows[name][0] = 0
    first = item_columns(SHOP, ids, rows)
    further = {"item_id": ids, **{name: first.pop(name) for name in ("price", "stock_level")}}
    paths = [
        write(tmp_path / "items.parquet", first),
        write(tmp_path / "more.parquet", further),
    ]
    [batch] = read_items(paths, SHOP)
    assert not batch.rejected
    assert batch.ids.tolist() == ids.tolist()


def test_the_identity_column_is_the_id_where_there_is_no_item_id(tmp_path: Path) -> None:
    columns = whole(sku=np.arange(1, COUNT + 1))
    del columns["item_id"]
    path = write(tmp_path / "items.parquet", columns)
    [batch] = read_items([path], SHOP)
    assert (batch.ids == batch.rows["sku"]).all()
    [other] = read_items([path], SHOP, id_column="brand")
    assert set(other.ids.tolist()) == set(ROWS["brand"].tolist())


def test_shorter_lists_are_padded_on_the_left(tmp_path: Path) -> None:
    path = write(tmp_path / "items.parquet", whole(colours=lists("colours", 3, [4, 5])))
    [batch] = read_items([path], SHOP)
    assert batch.rows["colours"][3].tolist() == [0, 4, 5]
    assert (batch.rows["colours"][4:] == ROWS["colours"][4:]).all()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("item_id", None, "null"),
        ("item_id", -5, "-5 is negative"),
        ("sku", None, "null"),
        ("sku", -1, "-1 is negative"),
        ("sku", 2**31, "2147483648 is beyond int32"),
        ("colours", None, "null"),
        ("colours", [1, None, 2], "null"),
        ("colours", [1, -2, 2], "-2 is negative"),
        ("colours", [2**31, 1], "2147483648 is beyond int32"),
        ("colours", [1, 2, 3, 4], "more than 3 values"),
        ("picture", None, "null"),
        ("picture", [1.0] * 5, "5 values instead of 6"),
        ("picture", [1.0] * 7, "7 values instead of 6"),
        ("picture", [1.0] * 5 + [None], "null"),
        ("picture", [1.0] * 5 + [float("nan")], "element 5: NaN"),
        ("picture", [1.0] * 5 + [float("-inf")], "element 5: infinite"),
        ("picture", [1.0] * 5 + [65_520.0], "element 5: 65520 is beyond the range of float16"),
        ("price", float("nan"), "NaN"),
        ("price", 1e39, "1e+39 is beyond the range of float32"),
        ("stock_level", -1, "-1 is negative"),
    ],
)
def test_a_bad_row_is_rejected_with_its_place_and_reason(
    tmp_path: Path, column: str, value: Any, reason: str
) -> None:
    values = IDS.tolist() if column == "item_id" else lists(column, 0, ROWS[column][0].tolist())
    if column == "price":
        values = [float(v[0]) for v in ROWS["price"]]
    values[13] = value
    path = write(tmp_path / "items.parquet", whole(**{column: values}))
    batches = list(read_items([path], SHOP, 5))
    [rejected] = [row for batch in batches for row in batch.rejected]
    assert (rejected.file, rejected.row, rejected.column) == (str(path), 13, column)
    assert rejected.reason == reason
    ids, rows = merged(batches)
    others = np.arange(COUNT) != 13
    assert (ids == IDS[others]).all()
    assert rows.tobytes() == ROWS[others].tobytes()
    with pytest.raises(DataFileError, match=f"row 13, column {column}: "):
        list(read_items([path], SHOP, 5, strict=True))


def test_an_id_given_twice_is_taken_once(tmp_path: Path) -> None:
    twice = IDS.copy()
    twice[11] = twice[2]
    path = write(tmp_path / "items.parquet", whole(item_id=twice))
    batches = list(read_items([path], SHOP, 4))
    [rejected] = [row for batch in batches for row in batch.rejected]
    assert (rejected.row, rejected.column) == (11, "item_id")
    assert merged(batches)[0].tolist() == np.delete(IDS, 11).tolist()


@pytest.mark.parametrize(("column", "index"), [("sku", 500), ("stock_level", 4)])
def test_an_index_beyond_the_vocabulary_is_cold_unless_strict(
    tmp_path: Path, column: str, index: int
) -> None:
    path = write(tmp_path / "items.parquet", whole(**{column: lists(column, 3, index)}))
    [batch] = read_items([path], SHOP)
    assert batch.rows[column][3] == index
    with pytest.raises(DataFileError, match=f"row 3, column {column}: {index} is not in the voc"):
        list(read_items([path], SHOP, strict=True))


@pytest.mark.parametrize(
    ("column", "values", "what"),
    [
        ("sku", [True] * COUNT, "bool, not integers"),
        ("colours", [1] * COUNT, "int64, not lists of integers"),
        ("colours", [["red"]] * COUNT, "not lists of integers"),
        ("picture", ["a"] * COUNT, "string, not lists of numbers"),
        ("item_id", ["a"] * COUNT, "string, not integers"),
    ],
)
def test_a_column_of_another_type_names_file_and_column(
    tmp_path: Path, column: str, values: list[Any], what: str
) -> None:
    path = write(tmp_path / "items.parquet", whole(**{column: values}))
    with pytest.raises(DataFileError, match=what) as caught:
        list(read_items([path], SHOP))
    assert f"{path}: column {column}: " in str(caught.value)


def test_a_missing_item_column_is_an_error(tmp_path: Path) -> None:
    columns = whole()
    del columns["picture"]
    path = write(tmp_path / "items.parquet", columns)
    with pytest.raises(DataFileError, match="no column 'picture'"):
        read_items([path], SHOP)


def test_a_missing_id_column_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "items.parquet", {"a": [1]})
    with pytest.raises(DataFileError, match="has no column item_id; name the id column"):
        read_items([path], SHOP)
    with pytest.raises(DataFileError, match="has no column 'b'"):
        read_items([path], SHOP, id_column="b")


def test_a_missing_context_column_is_padding_and_said(tmp_path: Path) -> None:
    columns = whole()
    del columns["stock_level"]
    path = write(tmp_path / "items.parquet", columns)
    items = ItemParquet([path], SHOP)
    [batch] = items.batches()
    assert not batch.rows["stock_level"].any()
    assert items.warnings == [f"no column stock_level in {path}: 0 (padding) for every item"]


def test_a_further_file_gives_what_the_first_lacks(tmp_path: Path) -> None:
    columns = whole()
    order = np.random.default_rng(0).permutation(COUNT)
    further = {
        "item_id": IDS[order],
        "stock_level": columns.pop("stock_level").take(order),
        "price": columns.pop("price").take(order),
        "brand": ROWS["brand"][order],  # the first file has it too: not taken
    }
    first = write(tmp_path / "items.parquet", columns)
    second = write(tmp_path / "more.parquet", further, row_group_size=3)
    items = ItemParquet([first, second], SHOP)
    ids, rows = merged(list(items.batches(6)))
    assert (ids == IDS).all()
    assert rows.tobytes() == ROWS.tobytes()
    assert not items.warnings


def test_items_without_their_further_context_are_counted(tmp_path: Path) -> None:
    columns = whole()
    level = columns.pop("stock_level")
    first = write(tmp_path / "items.parquet", columns)
    second = write(
        tmp_path / "more.parquet", {"item_id": IDS[:15], "stock_level": level.slice(0, 15)}
    )
    items = ItemParquet([first, second], SHOP)
    _, rows = merged(list(items.batches(6)))
    assert not rows["stock_level"][15:].any()
    assert items.warnings == [f"5 items are not in {second}: their stock_level is 0 (padding)"]


def test_items_without_their_further_features_are_rejected(tmp_path: Path) -> None:
    columns = whole()
    price = columns.pop("price")
    first = write(tmp_path / "items.parquet", columns)
    second = write(tmp_path / "more.parquet", {"item_id": IDS[1:], "price": price.slice(1)})
    [batch] = read_items([first, second], SHOP)
    [rejected] = batch.rejected
    assert (rejected.row, rejected.column) == (0, "price")
    assert rejected.reason == f"id {IDS[0]} is not in {second}"


def test_a_bad_row_of_a_further_file_rejects_its_item(tmp_path: Path) -> None:
    columns = whole()
    levels = columns.pop("stock_level").to_pylist()
    levels[4] = -1
    first = write(tmp_path / "items.parquet", columns)
    second = write(tmp_path / "more.parquet", {"item_id": IDS, "stock_level": levels})
    [batch] = read_items([first, second], SHOP)
    [rejected] = batch.rejected
    assert rejected.row == 4
    assert rejected.reason == f"{second} row 4: -1 is negative"


def test_bad_and_repeated_ids_of_a_further_file_are_rejected(tmp_path: Path) -> None:
    columns = whole()
    price = columns.pop("price")
    order = [3, 0, 5, 1, *range(2, COUNT), 0]  # rows 0, 2 and 3 get bad ids; the last repeats
    ids: list[int | None] = [int(IDS[n]) for n in order]
    ids[0], ids[2], ids[3] = None, -4, int(IDS[0])
    first = write(tmp_path / "items.parquet", columns)
    second = write(
        tmp_path / "more.parquet", {"item_id": ids, "price": price.take(order)}, row_group_size=3
    )
    batches = list(read_items([first, second], SHOP, 6))
    told = [(r.row, r.column, r.reason) for r in batches[0].rejected if r.file == str(second)]
    assert told == [
        (0, "item_id", "null"),
        (2, "item_id", "-4 is negative"),
        (3, "item_id", f"id {IDS[0]} repeated"),
        (len(order) - 1, "item_id", f"id {IDS[0]} repeated"),
    ]
    [absent] = [r for batch in batches for r in batch.rejected if r.file == str(first)]
    assert absent.reason == f"id {IDS[1]} is not in {second}"
    taken, rows = merged(batches)
    kept = np.arange(COUNT) != 1
    assert (taken == IDS[kept]).all()
    assert rows.tobytes() == ROWS[kept].tobytes()  # of IDS[0], the first row counts
    told_again = [b for b in ItemParquet([first, second], SHOP).batches(6, 6) if b.rejected]
    assert not told_again
    with pytest.raises(DataFileError, match=r"more\.parquet: row 0, column item_id: null"):
        read_items([first, second], SHOP, strict=True)


def test_a_null_id_of_a_further_file_is_not_item_0(tmp_path: Path) -> None:
    columns = whole()
    level = columns.pop("stock_level")
    ids = [0, *IDS[1:].tolist()]
    columns["item_id"] = ids
    first = write(tmp_path / "items.parquet", columns)
    second = write(tmp_path / "more.parquet", {"item_id": [None, *ids[1:]], "stock_level": level})
    items = ItemParquet([first, second], SHOP)
    [batch] = items.batches()
    assert batch.rows["stock_level"][batch.ids == 0].tolist() == [0]
    assert [str(r) for r in batch.rejected] == [f"{second}: row 0, column item_id: null"]
    assert items.warnings == [f"1 items are not in {second}: their stock_level is 0 (padding)"]


def test_what_is_no_parquet_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    with pytest.raises(DataFileError, match="not a readable parquet file"):
        read_items([path], SHOP)
    path.write_bytes(b"item_id,sku\n1,2\n")
    with pytest.raises(DataFileError, match="not a readable parquet file"):
        read_items([path], SHOP)
    with pytest.raises(DataFileError, match="no item file"):
        read_items([], SHOP)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "items.parquet")
    with pytest.raises(DataFileError, match="not a plain file"):
        read_items([tmp_path / "items.parquet"], SHOP)


def test_files_with_the_same_columns_are_further_rows(tmp_path: Path) -> None:
    """As Spark, BigQuery and Dask write an export."""
    columns = pa.table(whole())
    cuts = [(0, 7), (7, 0), (7, 12), (19, 1)]  # one part is empty
    order = [list(columns.column_names), list(reversed(columns.column_names))]
    paths = [
        write(tmp_path / f"part-{n}.parquet", dict(zip(names, part.columns, strict=True)))
        for n, (at, size) in enumerate(cuts)
        for names in [order[n % 2]]
        for part in [columns.slice(at, size).select(names)]
    ]
    for batch_size, start in ((1000, 0), (4, 0), (4, 6), (4, 7), (4, 18), (4, 20)):
        batches = list(ItemParquet(paths, SHOP).batches(batch_size, start))
        assert [i for batch in batches for i in batch.ids] == IDS[start:].tolist()
        assert not batches or batches[-1].next_row == COUNT
        rows = b"".join(batch.rows.tobytes() for batch in batches)
        assert rows == ROWS[start:].tobytes()
    items = ItemParquet(paths, SHOP)
    assert (items.rows, items.joined_to_nothing, items.warnings) == (COUNT, 0, [])


def test_a_bad_row_of_a_part_is_told_with_its_own_file_and_row(tmp_path: Path) -> None:
    columns = pa.table(whole(stock_level=lists("stock_level", 13, -1)))
    twice = IDS.copy()
    twice[15] = twice[2]
    columns = columns.set_column(0, "item_id", pa.array(twice))
    paths = [
        write(tmp_path / f"{n}.parquet", dict(zip(columns.column_names, p.columns, strict=True)))
        for n, p in enumerate([columns.slice(0, 10), columns.slice(10)])
    ]
    rejected = [r for batch in read_items(paths, SHOP, 4) for r in batch.rejected]
    assert [(r.file, r.row, r.column, r.reason) for r in rejected] == [
        (str(paths[1]), 3, "stock_level", "-1 is negative"),
        (str(paths[1]), 5, "item_id", f"id {IDS[2]} repeated"),  # of the first part
    ]


def test_two_groups_of_parts_are_joined(tmp_path: Path) -> None:
    """In whatever order the files are named, as a shell's ``*`` does."""
    order = np.random.default_rng(0).permutation(COUNT)
    info = pa.table(whole()).drop(["stock_level", "price"])
    more = pa.table(whole()).select(["item_id", "stock_level", "price"]).take(order)
    files = {
        "info-0": info.slice(0, 11),
        "more-0": more.slice(0, 4),
        "info-1": info.slice(11),
        "more-1": more.slice(4),
    }
    paths = [
        write(tmp_path / name, dict(zip(part.column_names, part.columns, strict=True)))
        for name, part in files.items()
    ]
    items = ItemParquet(paths, SHOP)
    ids, rows = merged(list(items.batches(6)))
    assert (ids == IDS).all()
    assert rows.tobytes() == ROWS.tobytes()
    assert (items.joined_to_nothing, items.warnings) == (0, [])


def test_ids_that_are_joined_to_nothing_are_counted_and_told(tmp_path: Path) -> None:
    columns = whole()
    level = columns.pop("stock_level").to_pylist()
    first = write(tmp_path / "items.parquet", columns)
    further = {"item_id": [0, 5, 7, *IDS.tolist()], "stock_level": [0, 1, 1, *level]}
    second = write(tmp_path / "more.parquet", further)  # 0 is the challenge's padding
    items = ItemParquet([first, second], SHOP)
    ids, _ = merged(list(items.batches(6)))
    assert (ids == IDS).all()
    assert items.joined_to_nothing == 2
    assert items.warnings == [f"2 ids of {second} are not in {first}: not loaded (5, 7)"]


def test_items_whose_shared_columns_differ_are_counted_and_told(tmp_path: Path) -> None:
    columns = whole()
    level = columns.pop("stock_level")
    first = write(tmp_path / "items.parquet", columns)
    brand, picture = ROWS["brand"].copy(), ROWS["picture"].astype(np.float64)
    brand[3] += 1
    brand[4] += 1
    picture[4, 0] += 1
    picture[5] += 1e-9  # the same once it is stored
    further = {"item_id": IDS, "stock_level": level, "brand": brand, "picture": list(picture)}
    second = write(tmp_path / "more.parquet", further)
    items = ItemParquet([first, second], SHOP)
    batches = list(items.batches(6))
    _, rows = merged(batches)
    assert rows.tobytes() == ROWS.tobytes()  # the first file's count
    assert sum(batch.differing for batch in batches) == 2
    assert items.warnings == [
        f"2 items have another brand, picture in {second} than in the files before it, which count"
    ]


def test_a_shared_column_that_cannot_be_read_differs(tmp_path: Path) -> None:
    columns = whole()
    level = columns.pop("stock_level")
    first = write(tmp_path / "items.parquet", columns)
    further = {"item_id": IDS, "stock_level": level, "brand": ["a"] * COUNT}
    second = write(tmp_path / "more.parquet", further)
    batches = list(read_items([first, second], SHOP))
    assert sum(batch.differing for batch in batches) == COUNT
    assert not [r for batch in batches for r in batch.rejected]


def test_a_null_id_does_not_make_item_0_a_repetition(tmp_path: Path) -> None:
    ids = [None, 0, *IDS[2:].tolist()]
    path = write(tmp_path / "items.parquet", whole(item_id=ids))
    [batch] = read_items([path], SHOP)
    assert batch.ids[0] == 0
    assert [str(r) for r in batch.rejected] == [f"{path}: row 0, column item_id: null"]
