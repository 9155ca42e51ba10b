"""Every row is in exactly one request of its user, in its order; none is lost on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from batch.errors import BatchError
from batch.grouping.groups import grouped
from batch.grouping.partition import bucket_of, mixed
from batch.grouping.spill import Bucket, Spill, hash_of, record_of, records_of
from batch.inputs.requests import Requests, joined
from batch.inputs.source import ForwardReader, open_input
from batch.job import Columns
from feature_store.contract import MAX_ID
from tests.service.user_world import LEVELLED

COLUMNS = Columns(
    "rows", "user_id", "item_id", context=("likes_level",), features=("device", "hour"), time="time"
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 7, MAX_ID]),
        st.integers(0, 3),
        st.sampled_from([0, 1]),
        st.sampled_from([0.0, 1.5, np.nan]),
    ),
    max_size=40,
)


def requests_of(rows: list[tuple[int, int, int, float]]) -> Requests:
    users, times, device, hour = zip(*rows, strict=True) if rows else ((), (), (), ())
    count = len(rows)
    return Requests(
        np.array(users, np.int64),
        np.arange(count + 1),
        np.arange(count) + 100,
        {"likes_level": np.arange(count, dtype=np.int32) % 7},
        {"device": np.array(device, np.int32), "hour": np.array(hour, np.float64)},
        np.array(times, np.int64),
    )


@given(ROWS)
def test_requests_hold_the_rows_of_one_user_time_and_features(
    rows: list[tuple[int, int, int, float]],
) -> None:
    record = record_of(COLUMNS, LEVELLED)
    numbers = np.arange(len(rows)) * 3
    records = records_of(numbers, requests_of(rows), COLUMNS, record)
    shuffled = np.random.default_rng(0).permutation(records)
    requests, row = grouped(shuffled, COLUMNS)
    assert sorted(row.tolist()) == numbers.tolist()
    assert (requests.items == row // 3 + 100).all()
    assert (requests.context["likes_level"] == row // 3 % 7).all()
    assert requests.times is not None
    seen = set()
    for g in range(len(requests)):
        span = slice(int(requests.starts[g]), int(requests.starts[g + 1]))
        assert span.stop > span.start
        assert (np.diff(row[span]) > 0).all()
        key = tuple(repr(v) for v in rows[row[span][0] // 3])
        assert key not in seen
        seen.add(key)
        assert {tuple(repr(v) for v in rows[r // 3]) for r in row[span].tolist()} == {key}
        assert requests.users[g] == rows[row[span][0] // 3][0]
        query = requests.query(g)
        hour = rows[row[span][0] // 3][3]
        assert query.features["hour"] == (None if np.isnan(hour) else hour)


@settings(max_examples=50)
@given(st.lists(ROWS, max_size=4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_a_bucket_read_in_rounds_holds_every_row_once_and_requests_whole(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[int, int, int, float]]],
    buckets: int,
    most: int,
    longest: int,
) -> None:
    folder = tmp_path_factory.mktemp("spill") / "spill"
    spill, first = Spill(folder, COLUMNS, LEVELLED, buckets, held_bytes=500), 0
    for rows in batches:
        spill.add(np.arange(first, first + len(rows)), requests_of(rows))
        first += len(rows)
    assert not folder.exists()
    spill.finish()
    record, found = record_of(COLUMNS, LEVELLED), []
    keys = [tuple(repr(value) for value in row) for rows in batches for row in rows]
    for number in range(buckets):
        bucket = Bucket(folder, number, record, COLUMNS, most, longest)
        seen: set[tuple[str, ...]] = set()
        for records in bucket.rounds():
            assert (np.diff(records["row"]) > 0).all()
            assert (bucket_of(hash_of(records, COLUMNS), buckets) == number).all()
            of = {keys[row] for row in records["row"].tolist()}
            assert not of & seen
            seen |= of
            found += records["row"].tolist()
        for rows_apart, counts in bucket.too_long():
            assert bucket.rows > most
            for row, count in zip(rows_apart.tolist(), counts.tolist(), strict=True):
                assert count == keys.count(keys[row]) > longest
                assert keys[row] not in seen
            found += rows_apart.tolist()
    assert sorted(found) == list(range(first))


def test_a_bucket_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", COLUMNS, LEVELLED, 1)
    spill.add([0, 1], requests_of([(1, 0, 0, 0.0), (2, 0, 0, 0.0)]))
    spill.finish()
    (file,) = (tmp_path / "spill").glob("bucket-*")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BatchError, match=r"1 records instead of 2; run the same command"):
        Bucket(tmp_path / "spill", 0, record_of(COLUMNS, LEVELLED), COLUMNS, 9, 9)


@given(arrays.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, MAX_ID)))
def test_users_of_all_ids_have_a_bucket(users: np.ndarray) -> None:
    found = bucket_of(mixed(users), 7)
    assert ((found >= 0) & (found < 7)).all()
    assert (found == bucket_of(mixed(users.copy()), 7)).all()


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), max_size=6),
)
def test_ranges_of_rows_are_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[int],
    batch: int,
    row_group: int,
    ranges: list[tuple[int, int]],
) -> None:
    folder, first = tmp_path_factory.mktemp("input"), 0
    for number, rows in enumerate(files):
        table = pa.table({"user_id": np.arange(first, first + rows)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=row_group)
        first += rows
    reader = ForwardReader(open_input(str(folder)), ["user_id"], batch)
    for start, end in [(0, first), *ranges]:
        start, end = min(start, first), min(end, first)
        found: list[int] = []
        for row, _, read in reader.read(start, end):
            assert row == start + len(found)
            found += read["user_id"].to_pylist()
        assert found == list(range(start, end))


def test_requests_are_joined_in_order_with_their_faults() -> None:
    some = requests_of([(1, 0, 0, 0.0), (2, 1, 1, 1.5)])
    other = requests_of([(7, 3, 0, 0.0)])
    other = Requests(
        *(getattr(other, name) for name in ("users", "starts", "items", "context", "features")),
        times=other.times,
        faults={0: ("user_id", "null")},
    )
    whole = joined([some, other])
    assert whole.users.tolist() == [1, 2, 7]
    assert whole.starts.tolist() == [0, 1, 2, 3]
    assert whole.faults == {2: ("user_id", "null")}
    assert whole.times is not None
    assert whole.times.tolist() == [0, 1, 3]
