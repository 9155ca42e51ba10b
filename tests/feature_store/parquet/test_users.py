"""User records by ``python -m feature_store``: load, look up, check, export, forget."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from feature_store.cli.load import SourceFiles
from feature_store.cli.losses import Losses
from feature_store.contract import FeatureStore, Rows
from feature_store.parquet.load import NOTE, LoadReport
from tests.feature_store.parquet.test_check_export import changing, checked
from tests.feature_store.parquet.test_load import run
from tests.feature_store.parquet_samples import write
from tests.feature_store.samples import SHOP, ids
from tests.feature_store.stores import connect
from tests.feature_store.user_samples import COUNTRY, SCHEMA, user_rows, with_users

USERS = np.array([0, 7, 8, 2**62])
TEXTS = ["ada", "größe 42", "bob", "c"]


def user_columns(user_ids: Any, rows: Rows) -> dict[str, Any]:
    columns = {name: rows[name].tolist() for name in rows.dtype.names or ()}
    return {"user_id": list(user_ids), **columns}


@pytest.fixture
def files(tmp_path: Path) -> list[Any]:
    """Schema, histories and users, as options."""
    schema = tmp_path / "schema.yaml"
    schema.write_text(SCHEMA.to_yaml())
    histories = write(tmp_path / "h.parquet", {"user_id": [7, 9], "item_seq": [[3, 4], [5]]})
    users = write(tmp_path / "u.parquet", user_columns(USERS, user_rows(4)))
    rejects = tmp_path / "rejects.jsonl"
    return [
        *("--schema", schema, "--rejects", rejects, "--histories", histories, "--users", users),
    ]


async def stored(url: str, *users: int) -> Rows:
    store = await connect(url)
    rows = (await store.users(np.array(users))).rows
    await store.close()
    return rows


def test_users_are_loaded_found_checked_and_forgotten(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    loaded = run("load", store_url, *files, "--json")
    assert loaded.exit_code == 0, loaded.stderr
    told = json.loads(loaded.stdout)
    assert (told["users"], told["histories"], told["rejected"]) == (4, 2, 0)
    assert asyncio.run(stored(store_url, *USERS)).tobytes() == user_rows(4).tobytes()
    assert json.loads(run("stats", store_url, "--json").stdout)["users"] == 4

    seven = json.loads(run("get-user", store_url, 7, "--json").stdout)
    assert (seven["history"], seven["features"]["country"]) == ([4, 3], user_rows(4)["country"][1])
    printed = run("get-user", store_url, 7)
    assert "country" in printed.stdout
    assert "user 7: 2 items, newest first" in printed.stdout
    eight, nine, ten = (run("get-user", store_url, user, "--json") for user in (8, 9, 10))
    assert json.loads(eight.stdout)["history"] is None
    assert "user 8 has no history" in eight.stderr
    assert json.loads(nine.stdout)["features"] is None
    assert "user 9 has no record" in nine.stderr
    assert [one.exit_code for one in (eight, nine, ten)] == [0, 0, 4]

    assert checked(tmp_path, store_url, files[4:])[:1] == (0,)
    forgotten = run("forget-user", store_url, 7)
    assert forgotten.stdout == "user 7: record, history and idempotency keys erased\n"
    assert run("forget-user", store_url, 7, "--json").exit_code == 4
    assert run("get-user", store_url, 7).exit_code == 4
    assert run("forget-user", store_url, -1).exit_code == 2


def test_every_difference_of_users_is_reported(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    run("load", store_url, *files)

    async def change(store: FeatureStore) -> None:
        await store.delete_user(7)
        await store.patch_user(8, lambda row: row.__setitem__("country", 0))
        await store.put_users(ids(5), user_rows(1))

    changing(store_url, change)
    code, told, differences = checked(tmp_path, store_url, files[6:])
    assert (code, told["users"], told["differences"]) == (3, 4, 3)
    assert sorted((d["kind"], d["id"], d["what"]) for d in differences) == [
        ("user", 5, "in no file"),
        ("user", 7, "missing"),
        ("user", 8, "different: country"),
    ]


def test_users_with_invalid_features_are_rejected_by_row(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    rows = user_rows(4)
    rows["country"][1] = -1
    rows["taste"][2, 3] = np.nan
    users = write(tmp_path / "u.parquet", user_columns([1, 2, 3, 1], rows))
    loaded = run("load", store_url, *files[:4], "--users", users)
    assert loaded.exit_code == 3
    assert "; 1 user records (3 rows rejected)" in loaded.stdout
    assert "0 superseded, 0 rejected;" in loaded.stdout
    rejected = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(one["row"], one["column"]) for one in rejected] == [
        (1, "country"), (2, "taste"), (3, "user_id"),
    ]  # fmt: skip


def test_a_file_without_a_feature_or_a_schema_without_users_is_refused(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    columns = user_columns(USERS, user_rows(4))
    del columns["taste"]
    users = write(tmp_path / "u.parquet", columns)
    refused = run("load", store_url, *files[:4], "--users", users)
    assert refused.exit_code == 1
    assert "no column 'taste', which the schema needs" in refused.stderr
    assert run("stats", store_url).exit_code == 1  # no store was created
    (tmp_path / "schema.yaml").write_text(SHOP.to_yaml())
    refused = run("load", store_url, *files[:4], "--users", users)
    assert "the schema has no user features" in refused.stderr


def test_user_features_are_added_to_a_store_by_a_load(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    (tmp_path / "schema.yaml").write_text(with_users(COUNTRY).to_yaml())
    assert run("load", store_url, *files).exit_code == 0
    (tmp_path / "schema.yaml").write_text(SCHEMA.to_yaml())
    assert run("load", store_url, *files[:6]).exit_code == 0  # without users
    rows = asyncio.run(stored(store_url, *USERS))
    assert rows["country"].tolist() == user_rows(4)["country"].tolist()
    assert not rows["likes"].any()
    assert run("load", store_url, *files).exit_code == 0
    assert asyncio.run(stored(store_url, *USERS)).tobytes() == user_rows(4).tobytes()


def test_a_stopped_load_of_users_goes_on_where_it_was(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    count = 20_000
    write(tmp_path / "u.parquet", user_columns(range(count), user_rows(count)))

    async def stop_at(report: LoadReport) -> None:
        store = await connect(store_url)
        report.sources += (await Losses.watched(store, "load")).servers
        await store.put_note(NOTE, report.model_dump_json().encode())
        await store.delete_user(0)
        await store.delete_user(count - 1)
        await store.close()

    run("load", store_url, *files)
    mark = SourceFiles([], [files[5]], [files[7]], None, None).mark(SCHEMA)
    asyncio.run(stop_at(LoadReport(sources=mark, phase=2, row=8192, users=8192, histories=2)))
    told = json.loads(run("load", store_url, *files, "--json").stdout)
    assert (told["users"], told["histories"]) == (count, 2)
    rows = asyncio.run(stored(store_url, 0, count - 1))
    assert not any(rows[:1].tobytes())  # before the row where it went on
    assert rows[1:].tobytes() == user_rows(count)[-1:].tobytes()


def test_an_export_is_loaded_again(tmp_path: Path, store_url: str, files: list[Any]) -> None:
    run("load", store_url, *files)
    exported = run("export", store_url, tmp_path / "out")
    assert "and 4 user records to" in exported.stdout
    again, out = f"lmdb://{tmp_path / 'again'}", tmp_path / "out"
    options = ["--histories", out / "histories.parquet", "--users", out / "users.parquet"]
    assert run("load", again, "--schema", out / "schema.yaml", *options).exit_code == 0
    assert asyncio.run(stored(again, *USERS)).tobytes() == user_rows(4).tobytes()


def test_a_user_0_whose_features_are_0_is_a_user(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    """In item files such a row is padding."""
    users = write(tmp_path / "u.parquet", user_columns([0, 5], np.zeros(2, SCHEMA.user_dtype)))
    loaded = run("load", store_url, *files[:-1], users, "--json")
    assert json.loads(loaded.stdout)["users"] == 2
    run("export", store_url, tmp_path / "out")
    checked = run("check", store_url, "--users", tmp_path / "out" / "users.parquet", "--json")
    assert json.loads(checked.stdout)["users"] == 2
    assert checked.exit_code == 0


def test_users_of_texts(tmp_path: Path, store_url: str, files: list[Any]) -> None:
    users = write(tmp_path / "u.parquet", user_columns(TEXTS, user_rows(4)))
    histories = write(tmp_path / "h.parquet", {"user_id": ["ada"], "item_seq": [["x", "y"]]})
    options = ["--histories", histories, "--users", users]
    loaded = run("load", store_url, *files[:4], *options, "--ids", "mapped")
    assert loaded.exit_code == 0, loaded.stderr
    found = json.loads(run("get-user", store_url, "größe 42", "--json").stdout)
    assert found["user_id"] == "größe 42"
    assert found["features"]["likes"] == user_rows(4)["likes"][1].tolist()
    assert json.loads(run("get-user", store_url, "ada", "--json").stdout)["history"] == ["y", "x"]
    assert checked(tmp_path, store_url, options)[0] == 0
    out = tmp_path / "out"
    assert run("export", store_url, out).exit_code == 0
    again = f"lmdb://{tmp_path / 'again'}"
    options = ["--histories", out / "histories.parquet", "--users", out / "users.parquet"]
    run("load", again, "--schema", out / "schema.yaml", *options, "--ids", "mapped")
    assert checked(tmp_path, again, ["--users", users])[0] == 0
    assert run("forget-user", store_url, "ada").exit_code == 0
    assert run("forget-user", store_url, "ada").exit_code == 4
    code, _, differences = checked(tmp_path, store_url, ["--users", users])
    assert (code, [(d["id"], d["what"]) for d in differences]) == (3, [("ada", "missing")])


def test_the_index_of_a_user_may_have_the_name_of_the_id(
    tmp_path: Path, store_url: str, files: list[Any]
) -> None:
    schema = with_users({"name": "user_id", "kind": "categorical", "vocabulary": 99, "width": 4})
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    users = write(tmp_path / "u.parquet", {"user_id": [3, 4]})
    assert run("load", store_url, *files[:4], "--users", users).exit_code == 0
    assert asyncio.run(stored(store_url, 3, 4))["user_id"].tolist() == [3, 4]
    others = write(tmp_path / "v.parquet", {"id": [300, 400], "user_id": [5, 6]})
    options = ["--users", others, "--user-id-column", "id"]
    assert run("load", store_url, *files[:4], *options).exit_code == 0
    assert asyncio.run(stored(store_url, 300, 400))["user_id"].tolist() == [5, 6]
    refused = run("export", store_url, tmp_path / "out")
    assert "users' ids differ from their feature 'user_id'" in refused.stderr
    assert "--user-id-column" in refused.stderr
    assert not (tmp_path / "out" / "schema.yaml").exists()  # the last of a whole export
    named = run("export", store_url, tmp_path / "out", "--user-id-column", "id")
    assert named.exit_code == 0, named.stderr
    texts = write(tmp_path / "t.parquet", {"user_id": ["ada", "bob"]})
    new = ["load", f"lmdb://{tmp_path / 'new'}", "--schema", tmp_path / "schema.yaml"]
    refused = run(*new, "--ids", "mapped", "--users", texts)
    assert "an integer, the index: write the ids to another column" in refused.stderr
    assert "--user-id-column" in refused.stderr


def test_a_damaged_record_is_named(tmp_path: Path, files: list[Any]) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    run("load", url, *files)
    with lmdb.open(str(tmp_path / "store"), max_dbs=16) as environment:
        users = environment.open_db(b"users", create=False)
        with environment.begin(write=True) as txn:
            txn.put((7).to_bytes(8, "big"), b"noise", db=users)
    found = run("get-user", url, 7)
    assert found.exit_code == 1
    assert "2 items, newest first" in found.stdout
    assert "error: record of user 7: not a user record; load or put it again" in found.stderr
    exported = run("export", url, tmp_path / "out")
    assert exported.exit_code == 3
    assert "1 damaged records left out: 7" in exported.stderr
