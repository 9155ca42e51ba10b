"""A back-test: histories are those of a clicks file, before each row's own time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.grouping.clicks import Clicks, build_index
from batch.inputs.source import open_input
from feature_store.contract import MAX_ID
from tests.batch.command import score, scored
from tests.batch.inputs import make_lists, write
from tests.service.world import World

LONGEST = 3


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 5, 6, MAX_ID]), st.integers(0, 4), st.integers(0, 9)),
        max_size=40,
    )
)
def test_a_history_is_the_last_clicks_before_its_time(
    tmp_path_factory: pytest.TempPathFactory, clicks: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("clicks")
    columns = zip(*clicks, strict=True) if clicks else ((), (), ())
    users, times, items = (pa.array(list(column), pa.int64()) for column in columns)
    write(pa.table({"user_id": users, "time": times, "item_id": items}), folder / "c.parquet", 7)
    build_index(open_input(str(folder / "c.parquet")), folder / "index", None)
    index = Clicks(folder / "index", LONGEST)
    for user in (0, 4, 5, 6, 7, MAX_ID):
        for time in range(6):
            # Stable: of equal times, the later in the file is the newer.
            before = sorted((c for c in clicks if c[0] == user and c[1] < time), key=lambda c: c[1])
            wanted = [item for *_, item in reversed(before)][:LONGEST]
            assert index.history(user, time).tolist() == wanted


@pytest.mark.parametrize("layout", ["lists", "rows"])
def test_scores_are_those_of_the_service_with_that_history(
    world: World, client: httpx.Client, tmp_path: Path, layout: str
) -> None:
    random = np.random.default_rng(4)
    users = random.choice([1, 2, 3, 4, 10**6], 600)
    times = random.integers(0, 1000, 600)
    items = random.choice(world.ids, 600)
    clicks = pa.table({"user_id": users, "item_id": items, "time": times})
    write(clicks, tmp_path / "clicks.parquet")
    lists = make_lists(world, 40, longest=90)
    asked = random.choice([1, 2, 3, 4, 10**6, 77], 40)
    moments = np.arange(40) * 25  # the first before every click
    table = pa.table({"user_id": asked, "item_ids": list(lists.items), "time": moments})
    if layout == "rows":
        lengths = [len(items) for items in lists.items]
        table = pa.table(
            {
                "user_id": np.repeat(asked, lengths),
                "item_id": np.concatenate(lists.items),
                "time": np.repeat(moments, lengths),
            }
        )
    source = write(table, tmp_path / "in.parquet")
    options = ("--clicks", str(tmp_path / "clicks.parquet"), "--part-candidates", "1000")
    found = scored(world, source, tmp_path / "out", *options)
    wanted, status = [], []
    for user, ids, moment in zip(asked, lists.items, moments, strict=True):
        past = np.flatnonzero((users == user) & (times < moment))
        past = past[np.argsort(times[past], kind="stable")][-world.schema.history_length :]
        history = items[past].tolist()  # oldest first
        body = {"user_id": int(user), "candidates": ids.tolist(), "history": history}
        answer = client.post("/v1/score", json=body).json()
        wanted.append([np.nan if s is None else s for s in answer["scores"]])
        status.append("cold" if answer["cold_user"] else "known")
    if layout == "lists":
        scores = found["scores"].to_pylist()
        assert found["user_status"].to_pylist() == status
    else:
        edges = np.cumsum([0, *(len(w) for w in wanted)])
        flat = found["score"].to_pylist()
        scores = [flat[start:end] for start, end in pairwise(edges)]
    assert "cold" in status
    for mine, theirs in zip(scores, wanted, strict=True):
        given = [np.nan if s is None else s for s in mine]
        assert np.array(given, np.float32).tobytes() == np.array(theirs, np.float32).tobytes()


def test_faults_of_clicks_have_a_place(world: World, tmp_path: Path) -> None:
    clicks = tmp_path / "clicks.parquet"
    table = pa.table({"user_id": [1, 2], "item_ids": [[1], [2]], "time": [1, 2]})
    source = write(table, tmp_path / "in.parquet")

    def refused(clicked: pa.Table, given: Path = source) -> str:
        write(clicked, clicks)
        done = score(world, given, tmp_path / "out", "--clicks", str(clicks))
        assert done.returncode == 1
        assert not (tmp_path / "out").exists()
        return done.stderr.splitlines()[-1].removeprefix("error: ")

    whole = {"user_id": [1, 2], "item_id": [3, 4], "time": [5, 6]}
    assert refused(pa.table(whole | {"time": [5, None]})) == f"{clicks}: row 1, column time: null"
    assert refused(pa.table({"user_id": [1], "item_id": [3]})).startswith(
        f"{clicks}: has no column 'time'"
    )
    moments = pa.array([0, 1], pa.timestamp("ms"))
    assert "holds timestamp[ms], and column time of" in refused(pa.table(whole | {"time": moments}))
    without = write(table.drop_columns("time"), tmp_path / "without.parquet")
    assert refused(pa.table(whole), without).startswith(f"{without}: has no column 'time'")


@pytest.mark.parametrize("other", ["clicks", "in"])
def test_a_file_whose_times_are_of_another_kind_than_those_of_the_first_is_refused(
    world: World, tmp_path: Path, other: str
) -> None:
    moments = pa.array([10**15], pa.timestamp("us"))
    rows = {"user_id": [1], "item_id": world.ids[:1]}
    for name in ("clicks", "in"):
        (tmp_path / name).mkdir()
        write(pa.table({**rows, "time": moments}), tmp_path / name / "a.parquet")
    write(pa.table({**rows, "time": [10**9]}), tmp_path / other / "b.parquet")
    clicks = str(tmp_path / "clicks")
    done = score(world, tmp_path / "in", tmp_path / "out", "--clicks", clicks)
    assert done.returncode == 1
    assert f"{tmp_path / other / 'b.parquet'}: column time: holds int64" in done.stderr
