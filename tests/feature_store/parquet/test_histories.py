"""History files: order, padding, which row of a user counts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import RIGHT_PADDED, HistoryParquet
from tests.feature_store.parquet_samples import write


def read(path: Path, batch_size: int = 8192, start: int = 0) -> dict[int, list[int]]:
    merged: dict[int, list[int]] = {}
    for batch in HistoryParquet(path).batches(batch_size, start):
        merged |= {user: found.tolist() for user, found in batch.histories.items()}
    return merged


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_padding_is_dropped_and_the_newest_comes_first(tmp_path: Path, batch_size: int) -> None:
    sequences = [[0, 0, 1, 2], [0, 0, 0, 0], [5, 6, 7, 8], []]
    path = write(tmp_path / "valid.parquet", {"user_id": [4, 5, 6, 7], "item_seq": sequences})
    assert read(path, batch_size) == {4: [2, 1], 5: [], 6: [8, 7, 6, 5], 7: []}


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_last_row_of_a_user_counts(tmp_path: Path, batch_size: int) -> None:
    sequences = [[1], [2], [1, 3], [9]]
    path = write(tmp_path / "train.parquet", {"user_id": [4, 5, 4, 6], "item_seq": sequences})
    assert read(path, batch_size) == {4: [3, 1], 5: [2], 6: [9]}


def test_reading_goes_on_from_any_row(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.parquet",
        {"user_id": np.arange(10), "item_seq": [[n + 1] for n in range(10)]},
        row_group_size=3,
    )
    assert read(path, 2, start=4) == {user: [user + 1] for user in range(4, 10)}


@pytest.mark.parametrize(
    ("user", "sequence", "column", "reason"),
    [
        (None, [1], "user_id", "null"),
        (-3, [1], "user_id", "-3 is negative"),
        (3, None, "item_seq", "null"),
        (3, [1, None], "item_seq", "null"),
        (3, [0, -1], "item_seq", "-1 is negative"),
        (3, [1, 2, 0, 0], "item_seq", RIGHT_PADDED),
    ],
)
def test_a_bad_row_is_rejected_with_its_place_and_reason(
    tmp_path: Path, user: Any, sequence: Any, column: str, reason: str
) -> None:
    path = write(
        tmp_path / "train.parquet",
        {"user_id": [1, 2, user, 4], "item_seq": [[1, 2], [3], sequence, [0, 4]]},
    )
    [batch] = HistoryParquet(path).batches()
    assert {u: h.tolist() for u, h in batch.histories.items()} == {1: [2, 1], 2: [3], 4: [4]}
    [rejected] = batch.rejected
    assert (rejected.row, rejected.column, rejected.reason) == (2, column, reason)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_row_without_a_user_takes_nothing_from_user_0(tmp_path: Path, batch_size: int) -> None:
    path = write(tmp_path / "train.parquet", {"user_id": [0, 5, None], "item_seq": [[1], [2], [3]]})
    assert read(path, batch_size) == {0: [1], 5: [2]}
    assert HistoryParquet(path).users.tolist() == [0, 5]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("bad", [None, [-1], [4, 0]])
def test_a_rejected_last_row_leaves_its_user_the_sound_one_before(
    tmp_path: Path, batch_size: int, bad: Any
) -> None:
    path = write(
        tmp_path / "train.parquet",
        {"user_id": [7, 7, 8, 7, 9], "item_seq": [[1], [1, 2], [5], bad, bad]},
        row_group_size=2,
    )
    assert read(path, batch_size) == {7: [2, 1], 8: [5]}
    assert HistoryParquet(path).users.tolist() == [7, 8]  # 9 has no sound row
    assert [
        r.row for batch in HistoryParquet(path).batches(batch_size) for r in batch.rejected
    ] == [
        3,
        4,
    ]


def test_missing_columns_and_other_types_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"user_id": [1]})
    with pytest.raises(DataFileError, match="has no column 'item_seq'"):
        HistoryParquet(path)
    path = write(tmp_path / "b.parquet", {"user_id": [1], "item_seq": ["1 2"]})
    with pytest.raises(DataFileError, match="column item_seq: holds string"):
        read(path)


def test_clicks_on_item_0_inside_a_history_are_counted_and_told(tmp_path: Path) -> None:
    """Padding is on the left alone: elsewhere a 0 was a click, in a catalogue that begins at 0."""
    sequences = [[0, 0, 5], [5, 0, 0, 7], [0, 4, 0, 3], [0, 0], [], [-1, 0, 4]]
    users = range(len(sequences))
    path = write(tmp_path / "histories.parquet", {"user_id": users, "item_seq": sequences})
    [warning] = HistoryParquet(path).warnings
    assert warning.startswith(f"3 clicks on item 0 inside histories of {path} are left out")
    path = write(tmp_path / "histories.parquet", {"user_id": [1, 2], "item_seq": [[0, 1], []]})
    assert not HistoryParquet(path).warnings
