"""``check`` and ``export`` of ``python -m feature_store``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.contents import Contents, Origin
from feature_store.errors import StoreUnavailable
from feature_store.parquet.check import _grown
from feature_store.parquet.export import StoreExport
from tests.feature_store.parquet.test_load import COUNT, IDS, ROWS, files, run
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

__all__ = ["files"]  # a fixture


def changing(url: str, change: Callable[[FeatureStore], Awaitable[Any]]) -> None:
    async def work() -> None:
        store = await connect(url)
        await change(store)
        await store.close()

    asyncio.run(work())


@pytest.fixture
def sources(files: list[Any], store_url: str) -> list[Any]:
    """The files that a loaded store is compared with."""
    assert run("load", store_url, *files).exit_code == 0
    return files[2:6]


def checked(tmp_path: Path, url: str, sources: list[Any]) -> tuple[int, dict[str, int], list[Any]]:
    file = tmp_path / "differences.jsonl"
    result = run("check", url, *sources, "--differences", file, "--json")
    lines = file.read_text().splitlines() if file.exists() else []
    return result.exit_code, json.loads(result.stdout), [json.loads(line) for line in lines]


def test_a_store_just_loaded_is_the_same(
    tmp_path: Path, store_url: str, sources: list[Any]
) -> None:
    code, told, differences = checked(tmp_path, store_url, sources)
    assert (code, differences) == (0, [])
    assert (told["items"], told["histories"], told["differences"]) == (COUNT, 3, 0)
    assert told["store"]["acknowledged_click"]  # type: ignore[index]
    assert "an acknowledged click is " in run("check", store_url, *sources).stdout


def test_every_difference_is_reported(tmp_path: Path, store_url: str, sources: list[Any]) -> None:
    async def change(store: FeatureStore) -> None:
        await store.delete_items(IDS[:1])
        await store.patch_item(int(IDS[1]), lambda row: row.__setitem__("stock_level", 9))
        await store.put_items(ids(5), random_rows(SHOP, 1))
        await store.delete_history(8)
        await store.put_histories({7: ids(1)})
        await store.append(7_000, [3])

    changing(store_url, change)
    code, told, differences = checked(tmp_path, store_url, sources)
    assert code == 3
    assert sorted((d["kind"], d["id"], d["what"]) for d in differences) == [
        ("history", 7, "[1] instead of [4, 3]"),
        ("history", 8, "missing"),
        ("item", 5, "in no file"),
        ("item", int(IDS[0]), "missing"),
        ("item", int(IDS[1]), "different: stock_level"),
    ]
    assert (told["differences"], told["grown"]) == (5, 1)
    shown = run("check", store_url, *sources, "--differences", tmp_path / "d")
    assert "item 5: in no file" in shown.stderr
    assert "5 differences" in shown.stdout


@pytest.mark.parametrize(
    ("stored", "expected", "grown"),
    [
        ([9, 3, 2], [3, 2], True),
        ([9], [], True),
        ([3, 2], [3, 2], False),
        ([9, 8, 3, 2], [3, 2, 1], True),  # trimmed to 4
        ([9, 3, 2], [3, 2, 1], False),  # not trimmed: something is missing
        ([9, 2, 3], [3, 2], False),
        ([9, 8, 7, 6], [3, 2, 1], True),  # everything has been pushed out
    ],
)
def test_clicks_since_are_told_from_other_changes(
    stored: list[int], expected: list[int], grown: bool
) -> None:
    assert _grown(np.array(stored), np.array(expected, int), 4) is grown


def test_later_files_override_earlier_ones(tmp_path: Path, store_url: str) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text(SHOP.to_yaml())
    first = write(tmp_path / "a.parquet", {"user_id": [1, 2], "item_seq": [[1], [2]]})
    second = write(tmp_path / "b.parquet", {"user_id": [2, 3], "item_seq": [[5], [6]]})
    histories = ["--histories", first, "--histories", second]
    assert run("load", store_url, "--schema", schema, *histories).exit_code == 0
    assert checked(tmp_path, store_url, histories)[0] == 0
    assert checked(tmp_path, store_url, histories[:2])[0] == 3


def test_a_store_can_be_exported_and_loaded_again(
    tmp_path: Path, store_url: str, sources: list[Any]
) -> None:
    folder = tmp_path / "out"
    exported = run("export", store_url, folder, "--json")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["items"] == COUNT
    files = ["--items", folder / "items.parquet", "--histories", folder / "histories.parquet"]
    again = f"lmdb://{tmp_path / 'again'}"
    loaded = run("load", again, "--schema", folder / "schema.yaml", *files, "--json")
    assert loaded.exit_code == 0, loaded.output
    assert checked(tmp_path, again, sources)[:1] == (0,)  # the exported is the original
    assert checked(tmp_path, store_url, files)[:1] == (0,)
    assert sorted(path.name for path in folder.iterdir()) == [
        "histories.parquet",
        "items.parquet",
        "schema.yaml",
    ]


def test_a_folder_in_square_brackets_is_printed_as_it_is(
    tmp_path: Path, store_url: str, sources: list[Any]
) -> None:
    folder = tmp_path / "[red]" / "a[" / "b]"
    exported = run("export", store_url, folder)
    assert exported.exit_code == 0, exported.output
    assert str(folder) in exported.stdout.replace("\n", "")


def test_an_id_column_that_is_a_feature_too_is_refused_where_they_differ(
    tmp_path: Path, store_url: str
) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text(SHOP.to_yaml())
    items = write(tmp_path / "items.parquet", item_columns(SHOP, IDS, ROWS))
    run("load", store_url, "--schema", schema, "--items", items)
    refused = run("export", store_url, tmp_path / "out", "--id-column", "sku")
    assert refused.exit_code == 1
    assert "--id-column" in refused.stderr
    assert not (tmp_path / "out" / "items.parquet").exists()
    assert run("export", store_url, tmp_path / "out", "--id-column", "code").exit_code == 0


def test_an_export_that_fails_leaves_the_earlier_one(
    tmp_path: Path, store_url: str, sources: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its items are written by then, and the earlier export may be all that is left."""
    folder, histories = tmp_path / "out", StoreExport.histories
    assert run("export", store_url, folder).exit_code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    changing(store_url, lambda store: store.delete_items(IDS[:3]))

    async def gone(self: StoreExport, path: Path) -> Any:
        async for none in histories(self, path):
            yield none
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(StoreExport, "histories", gone)
        assert run("export", store_url, folder).exit_code == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run("export", store_url, folder).exit_code == 0
    assert pq.read_metadata(folder / "items.parquet").num_rows == COUNT - 3


def test_users_of_an_earlier_export_are_said(
    tmp_path: Path, store_url: str, sources: list[Any]
) -> None:
    (tmp_path / "out").mkdir()
    users = write(tmp_path / "out" / "users.parquet", {"user_id": [1]})
    exported = run("export", store_url, tmp_path / "out")
    assert exported.exit_code == 0
    assert f"warning: {users} is of an earlier export" in exported.stderr.replace("\n", "")


def test_clicks_on_item_0_are_said_to_be_lost_in_an_export(
    tmp_path: Path, store_url: str, sources: list[Any]
) -> None:
    changing(store_url, lambda store: store.append(7, [0]))
    exported = run("export", store_url, tmp_path / "out")
    assert "1 histories hold item 0" in exported.stderr


def test_digests_of_contents_are_exported_and_loaded(tmp_path: Path, store_url: str) -> None:
    async def fill() -> None:
        store = await connect(store_url, SHOP, create=True)
        origin = Origin("picture", "00000000000000aa")
        await store.put_items(
            ids(1, 2), random_rows(SHOP, 2), Contents.all_of(origin, 2, SHOP.item_dtype)
        )
        await store.put_items(ids(3), random_rows(SHOP, 1, seed=3))
        await store.close()

    asyncio.run(fill())
    assert run("export", store_url, tmp_path / "out").exit_code == 0
    exported = tmp_path / "out" / "items.parquet"
    rows = pq.read_table(exported).sort_by("item_id")
    assert rows["picture_digest"].to_pylist() == ["00000000000000aa"] * 2 + [None]
    url, schema = f"lmdb://{tmp_path}/again", tmp_path / "out" / "schema.yaml"
    options = ("--schema", schema, "--items", exported, "--id-column", "item_id")
    assert run("load", url, *options).exit_code == 0
    found = json.loads(run("get-item", url, 2, "--json").stdout)
    assert found["contents"] == ["00000000000000aa"]
    assert "contents" not in json.loads(run("get-item", url, 3, "--json").stdout)
    assert json.loads(run("stats", url, "--json").stdout)["content"] == "picture"
    assert "aa" in run("get-item", url, 2).stdout


def test_a_row_whose_digest_is_none_is_rejected(tmp_path: Path) -> None:
    columns = item_columns(SHOP, ids(1, 2), random_rows(SHOP, 2))
    columns["picture_digest"] = ["00000000000000aa", "xyz"]
    write(tmp_path / "items.parquet", columns)
    (tmp_path / "schema.yaml").write_text(SHOP.to_yaml())
    url, rejects = f"lmdb://{tmp_path}/store", tmp_path / "rejects.jsonl"
    options = ("--schema", tmp_path / "schema.yaml", "--rejects", rejects)
    loaded = run("load", url, "--items", tmp_path / "items.parquet", *options)
    assert loaded.exit_code == 3
    rejected = json.loads(rejects.read_text())
    assert (rejected["row"], rejected["column"]) == (1, "picture_digest")
    assert "not a digest" in rejected["reason"]


def test_texts_are_loaded_and_exported_where_the_schema_keeps_them(
    tmp_path: Path, store_url: str
) -> None:
    columns = item_columns(SHOP, ids(1, 2, 3), random_rows(SHOP, 3))
    columns |= {"text_de": ["Schuhe", None, " "], "text": [None, "a hat", None]}
    items = write(tmp_path / "items.parquet", columns)
    schema = tmp_path / "schema.yaml"
    schema.write_text(SHOP.model_copy(update={"descriptions": True}).to_yaml())
    assert run("load", store_url, "--items", items, "--schema", schema).exit_code == 0
    assert json.loads(run("get-item", store_url, 1, "--json").stdout)["text"] == {"de": "Schuhe"}
    assert json.loads(run("get-item", store_url, 2, "--json").stdout)["text"] == {"und": "a hat"}
    assert "text" not in json.loads(run("get-item", store_url, 3, "--json").stdout)
    assert "Schuhe" in run("get-item", store_url, 1).stdout
    assert run("export", store_url, tmp_path / "out").exit_code == 0
    rows = pq.read_table(tmp_path / "out" / "items.parquet").sort_by("item_id")
    assert rows["text_de"].to_pylist() == ["Schuhe", None, None]
    assert rows["text"].to_pylist() == [None, "a hat", None]
    # A later load of a table without texts leaves them; one with them replaces them.
    bare = write(tmp_path / "bare.parquet", item_columns(SHOP, ids(1), random_rows(SHOP, 1)))
    assert run("load", store_url, "--items", bare, "--schema", schema).exit_code == 0
    assert json.loads(run("get-item", store_url, 1, "--json").stdout)["text"] == {"de": "Schuhe"}
    columns["text_de"] = pa.array([None, None, None], pa.string())
    write(items, columns)
    assert run("load", store_url, "--items", items, "--schema", schema).exit_code == 0
    assert "text" not in json.loads(run("get-item", store_url, 1, "--json").stdout)
