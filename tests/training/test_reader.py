"""The challenge's row files, read from real parquet files into memory-mapped arrays."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.schema import FeatureSchema
from tests.training.worlds import SMALL
from training.data import reader
from training.data.catalogue import Catalogue
from training.data.dataset import open_data
from training.data.reader import ReaderError, read_rows

N = 30
L = SMALL.history_length
LISTS = pa.list_(pa.int64())


def catalogue(schema: FeatureSchema = SMALL, ids: list[int] | None = None) -> Catalogue:
    rows = np.zeros(N + 1, schema.item_dtype)
    rows["item_id"] = np.arange(N + 1)
    rows["item_tags"][1:, -1] = 1 + np.arange(N) % 19
    rows["item_emb_d128"][1:] = np.linspace(-1, 1, 5)
    return Catalogue(schema, np.array(ids if ids else range(N + 1)), rows)


def columns(histories: list[Any] | None = None, **changed: Any) -> dict[str, Any]:
    """Four good rows, unless said otherwise."""
    good = [[0] * L, [0] * (L - 1) + [1], list(range(1, L + 1)), [N] * L]
    return {
        "user_id": pa.array([7, 2**62 + 1, 7, 9]),
        "item_seq": pa.array(good if histories is None else histories, LISTS),
        "item_id": pa.array([1, 2, 3, N]),
        "likes_level": pa.array([1, 2, 0, 10]),
        "views_level": pa.array([10, 9, 8, 7]),
        "label": pa.array([1.0, 0.0, 0.0, 1.0]),
    } | changed


def write(path: Path, **changed: Any) -> Path:
    table = {name: c for name, c in columns(**changed).items() if c is not None}
    pq.write_table(pa.table(table), path, use_dictionary=False, compression="none")
    return path


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one hypothesis example."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train.parquet"


def test_rows_are_what_the_file_says(file: Path, tmp_path: Path) -> None:
    rows = read_rows(write(file), catalogue(), tmp_path / "cache")
    assert len(rows) == 4
    assert rows.labelled
    assert rows.user.tolist() == [7, 2**62 + 1, 7, 9]
    assert rows.history.tolist() == columns()["item_seq"].to_pylist()
    assert rows.target.tolist() == [1, 2, 3, N]
    assert rows.context.tolist() == [[1, 10], [2, 9], [0, 8], [10, 7]]
    assert rows.label.tolist() == [1, 0, 0, 1]
    kinds = (rows.user, rows.history, rows.target, rows.context, rows.label)
    assert [a.dtype.str for a in kinds] == ["<i8", "<i4", "<i4", "<i4", "<f4"]
    assert all(isinstance(a, np.memmap) for a in kinds)


@pytest.mark.parametrize("label", [pa.array([1, 0, 0, 1]), pa.array([True, False, False, True])])
def test_a_label_may_be_an_integer_or_a_boolean(file: Path, tmp_path: Path, label: Any) -> None:
    rows = read_rows(write(file, label=label), catalogue(), tmp_path)
    assert rows.label.tolist() == [1, 0, 0, 1]


def test_a_file_to_be_predicted_has_no_labels(file: Path, tmp_path: Path) -> None:
    rows = read_rows(write(file, label=None, ID=pa.array(range(4))), catalogue(), tmp_path)
    assert not rows.labelled
    assert np.isnan(rows.label).all()


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.int64(), L)]
)
def test_every_kind_of_list_is_taken(file: Path, tmp_path: Path, kind: pa.DataType) -> None:
    sequences = columns()["item_seq"].to_pylist()
    rows = read_rows(write(file, item_seq=pa.array(sequences, kind)), catalogue(), tmp_path)
    assert rows.history.tolist() == sequences


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_the_newest_of_a_wider_history_are_kept_and_a_narrower_one_is_padded_on_the_left(
    width: int, length: int, data: st.DataObject
) -> None:
    clicks = st.lists(st.integers(1, N), max_size=width)
    histories = [data.draw(clicks) for _ in range(4)]
    schema = SMALL.model_copy(update={"history_length": length})
    with scratch() as folder:
        padded = [[0] * (width - len(h)) + h for h in histories]
        path = write(folder / "train.parquet", histories=padded)
        rows = read_rows(path, catalogue(schema), folder / "cache")
        newest = [h[-length:] for h in histories]
        assert rows.history.tolist() == [[0] * (length - len(h)) + h for h in newest]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no user": ({"user_id": None}, "has no column 'user_id'"),
    "no history": ({"item_seq": None}, "has no column 'item_seq'"),
    "no target": ({"item_id": None}, "has no column 'item_id'"),
    "no context": ({"views_level": None}, "has no column 'views_level'"),
    "no label": ({"label": None}, "has no column 'label'"),
    "ragged": (
        {"histories": [[1] * L, [1] * L, [1] * (L - 1), [1] * L]},
        f"row 2, column item_seq: {L - 1} items, but the rows before it have {L}",
    ),
    "empty lists": ({"histories": [[]] * 4}, "row 0, column item_seq: an empty list"),
    "padded right": (
        {"histories": [[0] * L, [1] + [0] * (L - 1), [1] * L, [1] * L]},
        "row 1, column item_seq: ends in padding",
    ),
    "unknown in history": (
        {"histories": [[1] * L, [1] * L, [1] * L, [1] * (L - 1) + [N + 1]]},
        f"row 3, column item_seq: item {N + 1} is not in the catalogue",
    ),
    "negative in history": (
        {"histories": [[1] * L, [-4] + [1] * (L - 1), [1] * L, [1] * L]},
        "row 1, column item_seq: -4 is negative",
    ),
    "null history": (
        {"histories": [[1] * L, [1] * L, None, [1] * L]},
        "row 2, column item_seq: null",
    ),
    "null in history": (
        {"histories": [[1] * L, [1] * L, [1] * (L - 1) + [None], [1] * L]},
        "row 2, column item_seq: null",
    ),
    "history of text": (
        {"item_seq": pa.array([["a"]] * 4)},
        "column item_seq: holds list<",
    ),
    "history of one number": ({"item_seq": pa.array([1] * 4)}, "column item_seq: holds int64"),
    "unknown target": (
        {"item_id": pa.array([1, 2, 99, 3])},
        "row 2, column item_id: item 99 is not in the catalogue",
    ),
    "padding as target": (
        {"item_id": pa.array([1, 0, 2, 3])},
        "row 1, column item_id: 0 is padding, not an item",
    ),
    "null target": ({"item_id": pa.array([1, 2, 3, None])}, "row 3, column item_id: null"),
    "fractional target": (
        {"item_id": pa.array([1.0, 1.5, 1.0, 1.0])},
        "row 1, column item_id: 1.5 is not a whole number",
    ),
    "negative user": (
        {"user_id": pa.array([1, -2, 3, 4])},
        "row 1, column user_id: -2 is negative",
    ),
    "null user": ({"user_id": pa.array([None, 2, 3, 4])}, "row 0, column user_id: null"),
    "user beyond 63 bits": (
        {"user_id": pa.array([1, 2, 3, 2**63], pa.uint64())},
        "row 3, column user_id: 9223372036854775808 is beyond 63 bits",
    ),
    "level beyond its vocabulary": (
        {"likes_level": pa.array([1, 11, 1, 1])},
        "row 1, column likes_level: 11 is not in the vocabulary of 11",
    ),
    "negative level": (
        {"views_level": pa.array([1, 1, -1, 1])},
        "row 2, column views_level: -1 is negative",
    ),
    "label of two": (
        {"label": pa.array([0.0, 1.0, 0.0, 2.0])},
        "row 3, column label: 2 is neither 0 nor 1",
    ),
    "label between": (
        {"label": pa.array([0.0, 0.5, 0.0, 2.0])},
        "row 1, column label: 0.5 is neither 0 nor 1",
    ),
    "label NaN": (
        {"label": pa.array([0.0, 1.0, float("nan"), 0.0])},
        "row 2, column label: NaN",
    ),
    "label null": ({"label": pa.array([0.0, None, 1.0, 0.0])}, "row 1, column label: null"),
    "label of text": ({"label": pa.array(["1"] * 4)}, "column label: holds string, not numbers"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("batch_rows", [2, 16_384])
def test_a_fault_is_told_with_file_row_and_column(
    file: Path, tmp_path: Path, fault: str, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", batch_rows)
    changed, message = FAULTS[fault]
    with pytest.raises(ReaderError) as caught:
        read_rows(write(file, **changed), catalogue(), tmp_path / "cache")
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    kept = tmp_path / "cache"
    assert not kept.exists() or not any(kept.iterdir())  # nothing half read is left


def test_a_file_that_is_empty_absent_or_not_parquet_is_told(file: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns()).slice(0, 0), file)
    with pytest.raises(ReaderError, match="holds no rows"):
        read_rows(file, catalogue(), tmp_path)
    file.write_bytes(b"user_id,item_seq\n")
    with pytest.raises(ReaderError, match="not a readable parquet file"):
        read_rows(file, catalogue(), tmp_path)
    file.unlink()
    with pytest.raises(ReaderError, match="not a readable parquet file"):
        read_rows(file, catalogue(), tmp_path)


def test_ids_need_not_be_dense(file: Path, tmp_path: Path) -> None:
    ids = [0, *(2**40 - 977 * item for item in range(1, N + 1))]
    histories = [[0] * (L - 2) + [ids[5], ids[1]]] * 4
    target = pa.array([ids[3], ids[N], ids[1], ids[2]])
    rows = read_rows(write(file, histories=histories, item_id=target), catalogue(ids=ids), tmp_path)
    assert rows.history.tolist() == [[0] * (L - 2) + [5, 1]] * 4
    assert rows.target.tolist() == [3, N, 1, 2]
    path = write(file, histories=histories, item_id=pa.array([3] * 4))
    with pytest.raises(ReaderError, match="item 3 is not in the catalogue"):
        read_rows(path, catalogue(ids=ids), tmp_path)


def test_a_file_is_read_once_and_again_only_when_it_or_its_meaning_changed(
    file: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    reads: list[int] = []

    def read(items: Catalogue) -> list[int]:
        rows = read_rows(file, items, cache, lambda what, done, total: reads.append(done))
        return list(rows.target)

    write(file)
    assert read(catalogue()) == read(catalogue()) == [1, 2, 3, N]
    assert reads == [4]
    read(catalogue(SMALL.model_copy(update={"history_length": 3})))  # another meaning
    assert reads == [4, 4]
    assert len(list(cache.iterdir())) == 2
    size = file.stat().st_size
    write(file, item_id=pa.array([9, 8, 7, 6]))
    assert file.stat().st_size == size  # only its time tells that the content is another
    os.utime(file, ns=(1, 1))
    assert read(catalogue()) == [9, 8, 7, 6]
    assert reads == [4, 4, 4]
    assert len(list(cache.iterdir())) == 1  # what was made of the old content is gone


def test_a_cache_that_cannot_be_written_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(ReaderError, match="cache: cannot keep the rows"):
        read_rows(write(file), catalogue(), tmp_path / "cache")


def test_memory_is_bounded_by_the_batch_and_the_row_group(file: Path, tmp_path: Path) -> None:
    count, width = 150_000, 64
    rng = np.random.default_rng(0)
    kinds = columns()
    schema = pa.schema([(name, column.type) for name, column in kinds.items()])
    with pq.ParquetWriter(file, schema) as writer:
        for _ in range(0, count, 10_000):
            offsets = np.arange(10_001, dtype=np.int32) * width
            histories = pa.ListArray.from_arrays(offsets, rng.integers(1, N, 10_000 * width))
            ones = np.ones(10_000, np.int64)
            parts = [ones, histories, ones, ones, ones, ones.astype(np.float64)]
            writer.write_table(pa.table(parts, schema=schema))
    pool, usual = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        rows = read_rows(
            file, catalogue(SMALL.model_copy(update={"history_length": width})), tmp_path / "cache"
        )
        peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    assert len(rows) == count
    batch = reader.BATCH_ROWS * width * 8
    assert peak < 10 * batch
    assert count * width * 8 > 9 * batch  # the column alone, were it read whole


@given(st.lists(st.integers(0, 3), min_size=2, max_size=20))
def test_a_batch_means_the_same_as_its_rows(chosen: list[int]) -> None:
    with scratch() as folder:
        items = catalogue()
        rows = read_rows(write(folder / "train.parquet"), items, folder)
        at = np.array(chosen)
        batch = rows.batch(at)
        for name, values in items.tensors.items():
            assert batch.items[name][0].eq(0).all()  # the padding item
            assert batch.items[name][batch.target].equal(values[rows.target[at].tolist()])
            assert batch.items[name][batch.history].equal(values[rows.history[at]])
        indices = batch.items["item_id"].tolist()
        assert indices == sorted({0, *rows.target[at].tolist(), *rows.history[at].ravel().tolist()})
        assert (batch.history == 0).equal(batch.items["item_id"][batch.history] == 0)
        assert batch.context.tolist() == rows.context[at].tolist()
        assert batch.label.tolist() == rows.label[at].tolist()


def item_info(path: Path, **changed: Any) -> Path:
    table = {
        "item_id": pa.array(range(N + 1)),
        "item_tags": pa.array([[0, 0, item % 19] for item in range(N + 1)]),
        "item_emb_d128": pa.array([[item / 7] * 5 for item in range(N + 1)]),
    } | changed
    pq.write_table(pa.table(table), path)
    return path


def test_a_catalogue_holds_item_k_in_row_k_in_storage_precision(tmp_path: Path) -> None:
    items = Catalogue.read([item_info(tmp_path / "item_info.parquet")], SMALL)
    assert len(items) == N + 1
    assert items.tensors["item_id"].tolist() == list(range(N + 1))
    assert items.tensors["item_tags"][20].tolist() == [0, 0, 1]
    stored = np.float32(np.float16(3 / 7))
    assert items.tensors["item_emb_d128"][3].tolist() == [stored] * 5
    assert stored != np.float32(3 / 7)
    assert items.rows[0].tobytes().count(0) == SMALL.item_dtype.itemsize


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"item_tags": pa.array([[20]] * (N + 1))}, "item_tags: 20 is not in the vocabulary of 20"),
        ({"item_emb_d128": pa.array([[0.5] * 4] * (N + 1))}, "4 values instead of 5"),
        ({"item_emb_d128": pa.array([[float("nan")] * 5] * (N + 1))}, "NaN"),
        ({"item_id": pa.array([1] * (N + 1))}, "id 1 repeated"),
        ({"item_id": pa.array(range(10, N + 11))}, "40 is not in the vocabulary of 40"),
        (
            {"item_emb_d128": pa.array([[1.0] * 5] * (N + 1))},
            "item id 0 has features, but 0 is padding",
        ),
    ],
)
def test_a_catalogue_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = item_info(tmp_path / "item_info.parquet", **changed)
    with pytest.raises(ReaderError) as caught:
        Catalogue.read([path], SMALL)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_data_folder_is_opened_and_keeps_its_arrays_beside_it(tmp_path: Path) -> None:
    item_info(tmp_path / "item_info.parquet")
    write(tmp_path / "train.parquet")
    write(tmp_path / "valid.parquet", item_id=pa.array([4, 4, 4, 4]))
    data = open_data(tmp_path, SMALL)
    assert (len(data.train), data.valid.target.tolist()) == (4, [4] * 4)
    assert len(list((tmp_path / ".cache").iterdir())) == 2
    write(tmp_path / "valid.parquet", label=None, ID=pa.array(range(4)))
    with pytest.raises(ReaderError, match=r"valid\.parquet: has no column 'label'"):
        open_data(tmp_path, SMALL)


def test_a_data_folder_without_items_is_told(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    with pytest.raises(ReaderError, match=r"item_info\.parquet"):
        open_data(tmp_path, SMALL)
