"""Popularity levels by day against their definition in plain Python."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.parquet.columns import DataFileError
from tests.training.test_cli import training
from training.data.levels import Clicks, days_of, joined
from training.data.levels_file import write_joined, write_last, write_levels

DAY = 86_400
SCHEMA = """
name: small
history_length: 4
item:
  - {name: item_id, kind: categorical, vocabulary: 100, width: 4}
  - {name: brand, kind: categorical, vocabulary: 9, width: 4}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 3}
"""
Click = tuple[int, int]  # item, seconds


def level(clicks: list[Click], item: int, day: int) -> int:
    """The definition."""
    counts: dict[int, int] = {}
    for other, second in clicks:
        if second // DAY < day:
            counts[other] = counts.get(other, 0) + 1
    if item not in counts:
        return 0
    fewer = [other for other in counts.values() if other < counts[item]]
    return 1 + 10 * len(fewer) // len(counts)


def clicks_of(clicks: list[Click]) -> Clicks:
    ids, seconds = np.array(clicks, np.int64).reshape(-1, 2).T
    items, item = np.unique(ids, return_inverse=True)
    return Clicks(items, item.astype(np.int32), (seconds // DAY).astype(np.int32))


click = st.tuples(st.integers(1, 30), st.integers(-3 * DAY, 9 * DAY))


@given(st.lists(click, min_size=1, max_size=80), st.lists(click, max_size=40))
def test_levels_are_those_of_the_definition(clicks: list[Click], rows: list[Click]) -> None:
    made = clicks_of(clicks)
    for day, levels in made.by_day():
        assert levels.tolist() == [level(clicks, item, day) for item in made.items.tolist()]
    ids, seconds = np.array(rows, np.int64).reshape(-1, 2).T
    found = joined(made, ids, (seconds // DAY).astype(np.int32))
    assert found.tolist() == [level(clicks, item, second // DAY) for item, second in rows]


@given(st.lists(click, min_size=1, max_size=80))
def test_last_levels_are_those_of_the_last_day(clicks: list[Click]) -> None:
    made = clicks_of(clicks)
    with TemporaryDirectory() as folder:
        write_last(made, Path(folder) / "last.parquet", "likes_level")
        table = pq.read_table(Path(folder) / "last.parquet")
    *_, (_, levels) = made.by_day()
    assert table.to_pydict() == {"item_id": made.items.tolist(), "likes_level": levels.tolist()}


@given(st.lists(click, min_size=1, max_size=60), st.lists(click, max_size=60), st.integers(-2, 9))
def test_no_click_of_a_day_or_later_counts_on_it(
    clicks: list[Click], others: list[Click], day: int
) -> None:
    """Rows on a day have the same levels with other clicks from that day on."""
    before = [click for click in clicks if click[1] // DAY < day]
    ids, days = np.arange(1, 31), np.full(30, day, np.int32)
    later = [(item, max(second, day * DAY)) for item, second in others]
    found = [
        joined(clicks_of(each), ids, days).tolist() for each in (clicks, before + later) if each
    ]
    assert all(each == found[0] for each in found)
    if not before:
        assert not any(found[0])


def test_equal_counts_have_the_lowest_level_of_the_tie_and_ten_levels_are_used() -> None:
    clicks = [(item, 0) for item in range(1, 21) for _ in range(max(4, item))]
    levels = dict(clicks_of(clicks).by_day())[1].tolist()
    assert levels == [1] * 4 + [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10]


def feature_store(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "feature_store", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def file_of(folder: Path, name: str, **columns: object) -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def test_a_row_per_item_and_day_with_a_click_before_it(tmp_path: Path) -> None:
    times = pa.array([0, DAY, 4 * DAY + 5], pa.timestamp("s"))
    file = file_of(tmp_path, "clicks.parquet", user_id=[7, 7, 8], item_id=[5, 3, 3], time=times)
    write_levels(Clicks.read(file), tmp_path / "levels.parquet", "level")
    day = datetime.date(1970, 1, 1)
    rows = pq.read_table(tmp_path / "levels.parquet").to_pylist()
    expected = [(5, 1, 1)]
    for number in (2, 3, 4):  # days without clicks, too
        expected += [(3, number, 1), (5, number, 1)]
    expected += [(3, 5, 6), (5, 5, 1)]
    assert [(r["item_id"], (r["day"] - day).days, r["level"]) for r in rows] == expected
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_rows_keep_their_columns_and_order(tmp_path: Path) -> None:
    times = pa.array([0, DAY], pa.timestamp("s"))
    clicks = Clicks.read(file_of(tmp_path, "clicks.parquet", item_id=[5, 3], time=times))
    (tmp_path / "rows").mkdir()
    for part, (ids, days) in enumerate([([3, 5, 9], [1, 1, 1]), ([3, 5], [99, 0])]):
        at = pa.array([DAY * day for day in days], pa.timestamp("s"))
        file_of(tmp_path / "rows", f"{part}.parquet", item_id=ids, time=at, text=["x"] * len(ids))
    write_joined(clicks, tmp_path / "rows", tmp_path / "out.parquet", "likes_level", None)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["item_id", "time", "text", "likes_level"]
    assert table["item_id"].to_pylist() == [3, 5, 9, 3, 5]
    assert table["likes_level"].to_pylist() == [0, 1, 0, 1, 0]
    with pytest.raises(DataFileError, match="has a column text already: give another --column"):
        write_joined(clicks, tmp_path / "rows", tmp_path / "out.parquet", "text", None)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (pa.array([-1, 0, DAY], pa.int64()), "s"),
        (pa.array([-1, 0, DAY * 1000], pa.int64()), "ms"),
        (pa.array([-1, 0, DAY * 10**6], pa.timestamp("us", tz="Asia/Tokyo")), None),
        (pa.array([-1, 0, DAY * 10**9], pa.timestamp("ns")), None),
        (pa.array([-1, 0, 1], pa.date32()), None),
    ],
)
def test_times_are_utc_days_before_1970_too(times: pa.Array, unit: str | None) -> None:
    assert days_of(times, "x", unit).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("columns", "unit", "complaint"),
    [
        (
            {"item_id": [1], "time": [1]},
            None,
            r"holds int64; name its unit: --unit s, ms, us or ns",
        ),
        ({"item_id": [1], "time": ["x"]}, None, r"column time: holds string, not times"),
        ({"item_id": [1, 2], "time": [1, None]}, "s", r"row 1, column time: null"),
        ({"item_id": [1, -2], "time": [1, 1]}, "s", r"row 1, column item_id: .*-2"),
        ({"item_id": [1, 2], "time": [0, 10**15]}, "s", r"beyond the years .*see --unit"),
        (
            {"item_id": [1, 2], "time": pa.array([0, 2**63 + 5], pa.uint64())},
            "s",
            r"beyond the years .*see --unit",
        ),
        ({"item_id": [1, 2], "time": [0, 10**10]}, "s", r"spans 115,741 days: see --unit"),
        (  # milliseconds
            {"item_id": [1, 2], "time": [1_700_000_000_000, 1_700_086_400_000]},
            "s",
            r"beyond the years 1 to 9999: see --unit",
        ),
        ({"item_id": [0, 2, 0], "time": [1, 1, 1]}, "s", r"2 clicks of item 0, which is padding"),
        ({"item_id": [1]}, "s", r"time"),
        ({"item_id": pa.array([], pa.int64()), "time": pa.array([], pa.int64())}, "s", "no rows"),
    ],
)
def test_clicks_that_cannot_be_are_named(
    tmp_path: Path, columns: dict[str, object], unit: str | None, complaint: str
) -> None:
    with pytest.raises(DataFileError, match=complaint):
        Clicks.read(file_of(tmp_path, "clicks.parquet", **columns), unit)


@pytest.mark.parametrize("column", ["", "item_id", "day"])
def test_a_level_s_column_has_a_name_of_its_own(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataFileError, match=f"--column {column}: the file has item_id, day and"):
        write_levels(clicks_of([(1, 0)]), tmp_path / "levels.parquet", column)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_levels_and_says_what(tmp_path: Path) -> None:
    clicks = file_of(tmp_path, "c.parquet", user_id=[1, 1], item_id=[5, 3], time=[0, DAY])
    out = tmp_path / "levels.parquet"
    done = training("levels", str(clicks), "--out", str(out), "--unit", "s", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "rows": 3,
        "items": 2,
        "clicks": 2,
        "first_day": "1970-01-01",
        "last_day": "1970-01-02",
    }
    assert pq.read_metadata(out).num_rows == 3
    refused = training("levels", str(clicks), "--out", str(clicks), "--unit", "s")
    assert refused.returncode == 1
    assert f"--out {clicks}: has the clicks, which it would replace" in refused.stderr
    assert pq.read_table(clicks).num_rows == 2
    refused = training("levels", str(clicks), "--out", str(out))
    assert refused.returncode == 1
    assert "--unit" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_levels_within_a_folder_that_is_read_are_refused(tmp_path: Path) -> None:
    """The next run would read them as a part: the rows, twice, and as clicks."""
    for name in ("clicks", "rows"):
        (tmp_path / name).mkdir()
        file_of(tmp_path / name, "a.parquet", item_id=[5, 3], time=[0, DAY])
    clicks, rows = tmp_path / "clicks", tmp_path / "rows"
    for folder in (clicks, rows):
        out = folder / "levels.parquet"
        words = ["levels", str(clicks), "--rows", str(rows), "--out", str(out), "--unit", "s"]
        refused = training(*words)
        assert refused.returncode == 1
        assert f"--out {out}: within {folder}, the folder of what is read" in refused.stderr
        assert not out.exists()


@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_as_the_file_to_write_is_refused(tmp_path: Path, out: str) -> None:
    clicks = file_of(tmp_path, "c.parquet", item_id=[5], time=[0])
    refused = training("levels", str(clicks), "--unit", "s", "--out", out)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == f"error: --out {out}: a folder; give a file in it"


def test_a_column_of_the_rows_that_is_damaged_is_named_and_a_link_stays(tmp_path: Path) -> None:
    rows = file_of(tmp_path, "r.parquet", item_id=[1] * 9, time=[0] * 9, x=list(range(9)))
    link, out = tmp_path / "link.parquet", tmp_path / "out.parquet"
    link.symlink_to(out)
    clicks = clicks_of([(1, 0)])
    write_joined(clicks, rows, link, "level", "s")
    assert link.readlink() == out
    group = pq.read_metadata(rows).row_group(0)
    content = bytearray(rows.read_bytes())
    start = group.column(2).dictionary_page_offset
    content[start : start + 12] = b"\xff" * 12
    rows.write_bytes(content)
    with pytest.raises(DataFileError, match=r"r\.parquet: column x: cannot be read"):
        write_joined(clicks, rows, out, "level", "s")


def test_last_levels_are_loaded_beside_the_other_item_files(tmp_path: Path) -> None:
    times = [0, DAY, DAY, 9 * DAY]
    clicks = file_of(tmp_path, "clicks.parquet", item_id=[5, 5, 3, 99], time=times)
    out, store = tmp_path / "last.parquet", f"lmdb://{tmp_path / 'store'}"
    words = ("levels", str(clicks), "--out", str(out), "--unit", "s", "--last")
    done = training(*words, "--column", "likes_level", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 3
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    items = file_of(tmp_path, "items.parquet", item_id=[3, 4, 5], brand=[1, 2, 3])
    files = ("--items", str(items), "--items", str(out))
    loaded = feature_store("load", store, "--schema", str(tmp_path / "schema.yaml"), *files)
    assert loaded.returncode == 0, loaded.stderr
    found = {n: json.loads(feature_store("get-item", store, n, "--json").stdout) for n in "345"}
    levels = {n: item["features"]["likes_level"] for n, item in found.items()}
    assert levels == {"3": 1, "4": 0, "5": 7}
    refused = training(*words, "--rows", str(clicks))
    assert refused.returncode == 1
    assert "error: --last: not with --rows" in refused.stderr
    refused = training(*words, "--column", "item_id")
    assert "--column item_id: the file has item_id and a level's column" in refused.stderr
