"""``python -m feature_store load`` and the commands that look into a store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from feature_store.__main__ import app
from feature_store.contract import FOUND
from feature_store.parquet.items import ItemParquet
from feature_store.parquet.load import BATCH_ROWS
from feature_store.schema import Dense
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP, bounded, ids, random_rows
from tests.feature_store.stores import connect

COUNT = 30
IDS = np.arange(1, COUNT + 1) * 1_000_003
ROWS = random_rows(SHOP, COUNT)
HISTORIES = {7: [0, 3, 4], 8: [5], 7_000: [0, 0, 1]}


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> list[Any]:
    """The load command's options for a small shop."""
    schema = tmp_path / "schema.yaml"
    schema.write_text(SHOP.to_yaml())
    items = write(tmp_path / "items.parquet", item_columns(SHOP, IDS, ROWS))
    histories = write(
        tmp_path / "valid.parquet",
        {"user_id": list(HISTORIES), "item_seq": list(HISTORIES.values())},
    )
    rejects = tmp_path / "rejects.jsonl"
    sources = ["--schema", schema, "--items", items, "--histories", histories]
    return [*sources, "--rejects", rejects]


def test_loads_items_and_histories(store_url: str, files: list[Any]) -> None:
    loaded = run("load", store_url, *files, "--json")
    assert loaded.exit_code == 0, loaded.output
    told = json.loads(loaded.stdout)
    assert (told["items"], told["histories"], told["rejected"]) == (COUNT, 3, 0)

    async def look() -> None:
        store = await connect(store_url, SHOP)
        batch = await store.items(IDS)
        assert (batch.status == FOUND).all()
        assert batch.rows.tobytes() == ROWS.tobytes()
        assert [h.tolist() for h in await store.histories([7, 8, 7_000]) if h is not None] == [
            [4, 3],
            [5],
            [1],
        ]
        await store.close()

    asyncio.run(look())


def test_a_person_can_look_into_the_store(store_url: str, files: list[Any]) -> None:
    run("load", store_url, *files)
    assert "2 items, newest first\n4 3\n" in run("get-user", store_url, 7).stdout
    assert json.loads(run("get-user", store_url, 7, "--json").stdout)["history"] == [4, 3]
    item = json.loads(run("get-item", store_url, IDS[5], "--json").stdout)
    assert item["features"]["colours"] == ROWS["colours"][5].tolist()
    assert "stock_level" in run("get-item", store_url, IDS[5]).stdout
    told = json.loads(run("stats", store_url, "--json").stdout)
    assert (told["items"], told["histories"], told["schema"]) == (COUNT, 3, "shop")
    assert f"{COUNT}" in run("stats", store_url).stdout


def test_what_is_not_there_is_exit_code_4(store_url: str, files: list[Any]) -> None:
    run("load", store_url, *files)
    user, item = run("get-user", store_url, 9), run("get-item", store_url, 9)
    assert (user.exit_code, item.exit_code) == (4, 4)
    assert "user 9 has no history" in user.stderr
    assert "item 9 is not in the store" in item.stderr


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("abc", "not an integer"),
        ("", "not an integer"),
        ("-5", "must be at least 0"),
        (str(2**63), f"must be at most {2**63 - 1}"),
    ],
)
def test_an_id_of_a_numeric_store_is_a_number(
    tmp_path: Path, files: list[Any], given: str, reason: str
) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    assert run("load", url, *files).exit_code == 0
    for command, name in (("get-user", "user_id"), ("get-item", "item_id")):
        refused = run(command, "--", url, given)
        assert refused.exit_code == 2
        words = " ".join(refused.stderr.replace("│", " ").split())
        assert f"Invalid value for '{name}'" in words
        assert reason in words


def test_an_error_of_the_system_is_the_file_and_the_reason(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    assert run("load", store_url, *files).exit_code == 0
    (tmp_path / "file").touch()
    refused = run("export", store_url, tmp_path / "file" / "out")
    assert refused.exit_code == 1
    assert refused.stderr.strip() == f"error: {tmp_path / 'file' / 'out'}: Not a directory"


def test_no_store_is_one_line_and_a_remedy(store_url: str) -> None:
    asked = run("stats", store_url)
    assert asked.exit_code == 1
    assert asked.stderr.startswith("error: ")
    assert "python -m feature_store load" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


def test_a_history_that_is_cut_is_counted(tmp_path: Path, store_url: str, files: list[Any]) -> None:
    longest = SHOP.history_length
    sequences = [[*range(1, 1 + longest + extra)] for extra in (0, 1, 5)]
    write(tmp_path / "valid.parquet", {"user_id": [1, 2, 3], "item_seq": sequences})
    told = json.loads(run("load", store_url, *files, "--json").stdout)
    assert (told["histories"], told["cut"]) == (3, 2)
    assert "2 of them truncated" in run("load", store_url, *files).stdout
    newest = json.loads(run("get-user", store_url, 3, "--json").stdout)["history"]
    assert newest == sequences[2][: -1 - longest : -1]


def test_loading_again_changes_nothing(store_url: str, files: list[Any]) -> None:
    for _ in range(2):
        assert json.loads(run("load", store_url, *files, "--json").stdout)["items"] == COUNT
    assert json.loads(run("stats", store_url, "--json").stdout)["items"] == COUNT


def test_files_of_another_schema_are_refused_before_there_is_a_store(
    tmp_path: Path, files: list[Any]
) -> None:
    wider = tmp_path / "wider.yaml"
    text = SHOP.to_yaml()
    size = next(feature.size for feature in SHOP.item if isinstance(feature, Dense))
    assert f"size: {size}" in text
    wider.write_text(text.replace(f"size: {size}", f"size: {size + 1}"))
    store = tmp_path / "store"
    refused = run("load", f"lmdb://{store}", *["--schema", wider, *files[2:]])
    assert refused.exit_code == 1
    assert str(wider) in refused.stderr
    assert f"none of the first {COUNT} rows" in refused.stderr
    assert not store.exists()


def test_rejected_rows_are_in_the_file_and_in_the_exit_code(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    columns = item_columns(SHOP, IDS, ROWS)
    columns["sku"] = [-1, *ROWS["sku"][1:-1].tolist(), None]
    write(tmp_path / "items.parquet", columns)
    write(tmp_path / "valid.parquet", {"user_id": [1, 2], "item_seq": [[-4], [1]]})
    loaded = run("load", store_url, *files, "--json")
    assert loaded.exit_code == 3
    assert json.loads(loaded.stdout)["rejected"] == 3
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert [(r["row"], r["column"], r["reason"]) for r in map(json.loads, lines)] == [
        (0, "sku", "-1 is negative"),
        (COUNT - 1, "sku", "null"),
        (0, "item_seq", "-4 is negative"),
    ]
    write(tmp_path / "items.parquet", item_columns(SHOP, IDS, ROWS))
    write(tmp_path / "valid.parquet", {"user_id": [1, 2], "item_seq": [[4], [1]]})
    assert run("load", store_url, *files).exit_code == 0
    assert not (tmp_path / "rejects.jsonl").exists()


@pytest.mark.parametrize(("value", "reason"), [(7.5, "7.5 is beyond max_abs 7"), (-9, "-9 is")])
def test_a_value_beyond_max_abs_costs_its_row_alone(
    tmp_path: Path, store_url: str, files: list[Any], value: float, reason: str
) -> None:
    schema, rejects = tmp_path / "bounded.yaml", files[-1]
    schema.write_text(bounded(7).to_yaml())
    rows = ROWS.copy()
    rows["picture"][4, 2] = value
    items = write(tmp_path / "huge.parquet", item_columns(SHOP, IDS, rows))
    sources = ["--schema", schema, "--items", items, "--rejects", rejects, "--json"]
    loaded = run("load", store_url, *sources)
    assert loaded.exit_code == 3, loaded.output
    told = json.loads(loaded.stdout)
    assert (told["items"], told["rejected"]) == (COUNT - 1, 1)
    [rejected] = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert (rejected["row"], rejected["column"]) == (4, "picture")
    assert rejected["reason"].startswith(f"element 2: {reason}")


def test_a_store_keeps_its_max_abs_whoever_opens_it(store_url: str) -> None:
    """The smaller one of the store's and the opener's; a load's own schema replaces both."""

    async def opened(most: float | None, **how: bool) -> float | None:
        store = await connect(store_url, bounded(most) if most else SHOP, **how)
        await store.close()
        return next(f.max_abs for f in store.schema.item if f.name == "picture")  # type: ignore[union-attr]

    async def look() -> None:
        assert await opened(7, create=True) == 7
        assert await opened(None) == 7
        assert await opened(5) == 5
        assert await opened(9) == 7
        assert await opened(9, create=True) == 9
        assert await opened(None) == 9
        assert await opened(None, create=True) is None
        assert await opened(None) is None

    asyncio.run(look())


def test_another_schema_is_refused_with_the_features_named(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    run("load", store_url, *files)
    (tmp_path / "schema.yaml").write_text(SHOP.to_yaml().replace("slots: 3", "slots: 9"))
    refused = run("load", store_url, *files)
    assert refused.exit_code == 1
    assert "item.colours" in refused.stderr


def test_missing_context_is_said(tmp_path: Path, store_url: str, files: list[Any]) -> None:
    columns = item_columns(SHOP, IDS, ROWS)
    del columns["stock_level"]
    write(tmp_path / "items.parquet", columns)
    loaded = run("load", store_url, *files)
    assert loaded.exit_code == 0
    assert "warning: no column stock_level" in loaded.stderr


SLOWLY = """
import asyncio, sys
from itertools import count
from feature_store.parquet.load import LoadJob
put, batches = LoadJob._put, count()
async def slowly(self, batch, report):
    await put(self, batch, report)
    if next(batches) > 0:
        print("the second batch is in the store, and not yet noted", flush=True)
        await asyncio.sleep(60)
LoadJob._put = slowly
from feature_store.__main__ import app
app(sys.argv[1:])
"""


MANY = 24_000  # three batches of the load


@pytest.fixture(scope="module")
def many_items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    item_ids, rows = np.arange(1, MANY + 1), random_rows(SHOP, MANY)
    rows["sku"][::1_000] = -1  # rejected rows in each batch
    columns = item_columns(SHOP, item_ids, rows)
    return write(tmp_path_factory.mktemp("many") / "items.parquet", columns)


def test_a_killed_load_goes_on_where_it_was(
    tmp_path: Path,
    store_url: str,
    files: list[Any],
    many_items: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kill -9 in mid-load, then the same command: it reads on, and nothing is missing."""
    files[files.index("--items") + 1] = many_items
    arguments = ["load", store_url, *map(str, files)]
    slowly = [sys.executable, "-c", SLOWLY, *arguments]
    with subprocess.Popen(slowly, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as loading:
        assert loading.stdout is not None
        assert loading.stdout.readline()
        loading.send_signal(signal.SIGKILL)
    assert loading.returncode == -signal.SIGKILL

    partly = json.loads(run("stats", store_url, "--json").stdout)["items"]
    assert 0 < partly < MANY * 0.9

    began, batches = list[int](), ItemParquet.batches

    def noted(self: ItemParquet, rows: int, start: int = 0) -> Iterator[Any]:
        began.append(start)
        return batches(self, rows, start)

    monkeypatch.setattr(ItemParquet, "batches", noted)
    loaded = run(*arguments, "--json")
    assert loaded.exit_code == 3, loaded.output  # with the rejected rows
    told = json.loads(loaded.stdout)
    assert BATCH_ROWS in began  # 0 is of a look at the first rows
    assert told["items"] == MANY - MANY // 1_000
    assert told["rejected"] == MANY // 1_000
    rejects = (tmp_path / "rejects.jsonl").read_text().splitlines()
    lines = [json.loads(line)["row"] for line in rejects]
    assert lines == list(range(0, MANY, 1_000))  # each once
    assert json.loads(run("stats", store_url, "--json").stdout)["items"] == told["items"]
    assert json.loads(run("get-user", store_url, 7, "--json").stdout)["history"] == [4, 3]


def test_a_load_of_changed_files_starts_afresh(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    async def pretend_stopped() -> None:
        store = await connect(store_url, SHOP)
        note = {"sources": "of other files", "row": 10, "items": 10}
        await store.put_note("load", json.dumps(note).encode())
        await store.close()

    run("load", store_url, *files)
    asyncio.run(pretend_stopped())
    assert json.loads(run("load", store_url, *files, "--json").stdout)["items"] == COUNT


def test_an_unreadable_store_folder_is_one_line(tmp_path: Path, files: list[Any]) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear reader")
    refused = run("load", f"lmdb://{folder}", *files)
    assert refused.exit_code == 1
    assert "holds other files" in refused.stderr
    assert os.listdir(folder) == ["letter.txt"]


def test_ids_are_shown_as_they_are(store_url: str, files: list[Any]) -> None:
    run("load", store_url, *files)

    async def click() -> None:
        store = await connect(store_url, SHOP)
        await store.append(2**63 - 1, [2**63 - 2])
        assert (await store.items(ids(2**63 - 2))).status[0] != FOUND
        await store.close()

    asyncio.run(click())
    shown = json.loads(run("get-user", store_url, 2**63 - 1, "--json").stdout)
    assert shown["history"] == [2**63 - 2]


@pytest.fixture
def in_parts(tmp_path: Path, files: list[Any]) -> list[Any]:
    """The same shop, its items in two files with the same columns; an id is in both."""
    columns = item_columns(SHOP, IDS, ROWS)
    parts = []
    for name, rows in {"part-0": slice(0, 20), "part-1": slice(19, COUNT)}.items():
        parts += ["--items", write(tmp_path / name, {n: v[rows] for n, v in columns.items()})]
    return [*files[:2], *parts, *files[4:]]


def test_parts_of_an_export_are_loaded_whole_and_checked(
    tmp_path: Path, in_parts: list[Any]
) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    loaded = run("load", url, *in_parts, "--json")
    assert loaded.exit_code == 3  # the id that is in both parts
    told = json.loads(loaded.stdout)
    assert (told["items"], told["rejected"], told["joined_to_nothing"]) == (COUNT, 1, 0)
    assert json.loads(run("stats", url, "--json").stdout)["items"] == COUNT
    checked = run("check", url, *in_parts[2:-2], "--json")
    assert checked.exit_code == 0, checked.stderr
    assert json.loads(checked.stdout)["items"] == COUNT
    assert json.loads(checked.stdout)["differences"] == 0
    lacking = [*in_parts[2:4], *in_parts[6:-2]]
    assert run("check", url, *lacking, "--differences", tmp_path / "d").exit_code == 3


def test_what_finds_no_item_and_what_differs_is_told_by_load_and_check(
    tmp_path: Path, files: list[Any]
) -> None:
    columns = item_columns(SHOP, IDS, ROWS)
    level = columns.pop("stock_level").to_pylist()
    write(tmp_path / "items.parquet", columns)
    brand = ROWS["brand"].tolist()
    brand[0] += 1
    further = {"item_id": [5, *IDS.tolist()], "stock_level": [1, *level], "brand": [1, *brand]}
    more = ["--items", write(tmp_path / "more.parquet", further)]
    url = f"lmdb://{tmp_path / 'store'}"
    loaded = run("load", url, *files, *more, "--json")
    checked = run("check", url, *files[2:6], *more, "--json")
    assert (loaded.exit_code, checked.exit_code) == (0, 0), loaded.stderr + checked.stderr
    for answer in (loaded, checked):
        told = json.loads(answer.stdout)
        assert (told["joined_to_nothing"], told["differing"]) == (1, 1)
        assert len(told["warnings"]) == 3
        assert "4 of the 4 items in the first 3 histories" in told["warnings"][-1]
        assert "1 ids of" in answer.stderr
        assert "1 items have another brand" in answer.stderr


def test_history_rows_that_a_later_one_supersedes_are_counted(
    tmp_path: Path, files: list[Any]
) -> None:
    write(tmp_path / "valid.parquet", {"user_id": [1, 2, 1], "item_seq": [[3], [4], [5]]})
    later = write(tmp_path / "later.parquet", {"user_id": [2, 9], "item_seq": [[6], [7]]})
    arguments = [*files, "--histories", later]
    url = f"lmdb://{tmp_path / 'store'}"
    loaded = json.loads(run("load", url, *arguments, "--json").stdout)
    assert (loaded["histories"], loaded["superseded"], loaded["rejected"]) == (3, 2, 0)
    line = run("load", url, *arguments).stdout
    assert "the histories of 3 users, from 5 rows; 2 superseded, 0 rejected" in line
    told = json.loads(run("check", url, *arguments[2:6], "--histories", later, "--json").stdout)
    assert (told["superseded"], told["differences"]) == (2, 0)
