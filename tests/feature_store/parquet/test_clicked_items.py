"""Ids of the histories that are no item of the store, and users without a click."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.feature_store.parquet.test_check_export import checked
from tests.feature_store.parquet.test_load import COUNT, IDS, ROWS, run
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP

NUMBERS = IDS.tolist()
CODES = [f"code {number}" for number in NUMBERS]
KINDS = [("numeric", NUMBERS), ("mapped", CODES)]


@pytest.fixture
def options(tmp_path: Path) -> list[Any]:
    """Those of a load, of items that have ids in ``number`` and ``code``, and an index, ``sku``."""
    schema = tmp_path / "schema.yaml"
    schema.write_text(SHOP.to_yaml())
    columns = item_columns(SHOP, IDS, ROWS)
    del columns["item_id"]
    columns |= {"number": NUMBERS, "code": CODES, "sku": list(range(1, COUNT + 1))}
    items = write(tmp_path / "items.parquet", columns)
    return ["--schema", schema, "--rejects", tmp_path / "rejects.jsonl", "--items", items]


def histories(tmp_path: Path, clicks: list[list[Any]]) -> list[Any]:
    columns = {"user_id": [str(at) for at in range(len(clicks))], "item_seq": clicks}
    if not any(isinstance(item, str) for history in clicks for item in history):
        columns["user_id"] = list(range(len(clicks)))
    return ["--histories", write(tmp_path / "valid.parquet", columns)]


def column_of(kind: str) -> str:
    return "code" if kind == "mapped" else "number"


@pytest.mark.parametrize(("kind", "clicked"), KINDS)
def test_histories_of_ids_that_are_no_item_are_told(
    tmp_path: Path, store_url: str, options: list[Any], kind: str, clicked: list[Any]
) -> None:
    given = histories(tmp_path, [[item] for item in clicked])
    wrong = [*options, "--ids", kind, "--id-column", "sku", *given]
    message = (
        f"{COUNT} of the {COUNT} items in the first {COUNT} histories of {given[1]} are not in the "
        "store: is `--id-column` the column of their ids?"
    )
    loaded = run("load", store_url, *wrong)
    assert loaded.exit_code == 0, loaded.output
    assert f"warning: {message}" in loaded.stderr.splitlines()
    told = json.loads(run("load", store_url, *wrong, "--json").stdout)
    assert (told["clicked_items"], told["unknown_items"]) == (COUNT, COUNT)
    assert told["warnings"] == [message]
    sources = [*options[4:], "--id-column", "sku", *given]
    code, found, _ = checked(tmp_path, store_url, sources)
    assert (code, found["clicked_items"], found["unknown_items"]) == (0, COUNT, COUNT)
    assert found["warnings"] == [message]  # type: ignore[comparison-overlap]
    assert f"warning: {message}" in run("check", store_url, *sources).stderr.splitlines()


@pytest.mark.parametrize(("kind", "clicked"), KINDS)
@pytest.mark.parametrize(("known", "warned"), [(8, False), (4, False), (3, True)])
def test_fewer_than_half_of_them_are_counted_alone(
    tmp_path: Path, options: list[Any], kind: str, clicked: list[Any], known: int, warned: bool
) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    unknown = [f"x{at}" if kind == "mapped" else 5 + at for at in range(8 - known)]
    given = histories(tmp_path, [clicked[:known] + unknown, clicked[:1], []])
    right = ["--ids", kind, "--id-column", column_of(kind)]
    told = json.loads(run("load", url, *options, *right, *given, "--json").stdout)
    assert (told["clicked_items"], told["unknown_items"]) == (8, 8 - known)
    assert len(told["warnings"]) == warned


def test_a_store_without_items_takes_histories_in_silence(
    tmp_path: Path, store_url: str, options: list[Any]
) -> None:
    given = histories(tmp_path, [[5], [6]])
    told = json.loads(run("load", store_url, *options[:4], *given, "--json").stdout)
    assert (told["clicked_items"], told["unknown_items"], told["warnings"]) == (2, 2, [])


def test_at_most_8192_clicks_of_a_file_are_looked_up(tmp_path: Path, options: list[Any]) -> None:
    url, length = f"lmdb://{tmp_path / 'store'}", SHOP.history_length
    clicks = [[5 + user * length + at for at in range(length + 1)] for user in range(1100)]
    right = ["--id-column", "number", *histories(tmp_path, [[], *clicks])]
    told = json.loads(run("load", url, *options, *right, "--json").stdout)
    assert told["clicked_items"] == 8192
    [warning] = told["warnings"]
    assert warning.startswith(f"8,192 of the 8,192 items in the first {8192 // length + 1:,} ")


def test_empty_histories_are_counted_apart_as_they_are_not_kept(
    tmp_path: Path, store_url: str, options: list[Any]
) -> None:
    given = histories(tmp_path, [NUMBERS[:9], [0, 0], [], NUMBERS[:1]])
    right = [*options, "--id-column", "number", *given]
    loaded = run("load", store_url, *right).stdout
    assert (
        "the histories of 4 users (1 of them truncated, 2 of them empty, which are not kept)"
        in loaded
    )
    assert json.loads(run("load", store_url, *right, "--json").stdout)["empty"] == 2
    assert json.loads(run("stats", store_url, "--json").stdout)["histories"] == 2
    given = histories(tmp_path, [[], NUMBERS[:1]])
    loaded = run("load", store_url, *options, "--id-column", "number", *given).stdout
    assert "the histories of 2 users (1 of them empty, which are not kept), from 2 rows" in loaded
