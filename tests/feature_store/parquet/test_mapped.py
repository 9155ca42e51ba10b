"""Loading, comparing, exporting and querying stores of text ids from parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import FeatureStore
from feature_store.parquet import load as loading
from feature_store.text_ids import LONGEST, TextIds
from tests.feature_store.parquet.test_check_export import changing, checked
from tests.feature_store.parquet.test_load import run
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.samples import SHOP, random_rows

COUNT = 30
ROWS = random_rows(SHOP, COUNT)
TEXTS = [f"sku {at}/ä" for at in range(COUNT)]
USERS = {"ann": [None, "", TEXTS[3], TEXTS[4]], "b\tb": [TEXTS[5]], "0": [None, None]}


def items_of(ids: Any, count: int = COUNT, **columns: Any) -> dict[str, Any]:
    made = item_columns(SHOP, np.arange(1, count + 1), ROWS[:count])
    return {**made, "item_id": ids, **columns}


@pytest.fixture
def schema(tmp_path: Path) -> list[Any]:
    path = tmp_path / "schema.yaml"
    path.write_text(SHOP.to_yaml())
    return ["--schema", path, "--ids", "mapped", "--rejects", tmp_path / "rejects.jsonl"]


@pytest.fixture
def sources(tmp_path: Path) -> list[Any]:
    items = write(tmp_path / "items.parquet", items_of(TEXTS))
    users = {"user_id": list(USERS), "item_seq": list(USERS.values())}
    return ["--items", items, "--histories", write(tmp_path / "valid.parquet", users)]


def history(url: str, user: Any) -> Any:
    return json.loads(run("get-user", "--json", "--", url, user).stdout)["history"]


def rejected(tmp_path: Path) -> list[tuple[int, str, str]]:
    lines = (tmp_path / "rejects.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["row"], row["column"], row["reason"]) for row in rows]


def test_items_and_histories_of_text_ids_are_loaded_and_looked_up(
    store_url: str, schema: list[Any], sources: list[Any]
) -> None:
    loaded = run("load", store_url, *schema, *sources, "--json")
    assert loaded.exit_code == 0, loaded.output
    told = json.loads(loaded.stdout)
    assert (told["items"], told["histories"], told["warnings"]) == (COUNT, 3, [])
    assert history(store_url, "ann") == [TEXTS[4], TEXTS[3]]
    assert history(store_url, "b\tb") == [TEXTS[5]]
    shown = run("get-user", store_url, "b\tb").stdout
    assert shown == f"user 'b\\tb': 1 items, newest first\n{TEXTS[5]!r}\n"
    item = json.loads(run("get-item", store_url, TEXTS[7], "--json").stdout)
    assert item["item_id"] == TEXTS[7]
    assert item["features"]["colours"] == ROWS["colours"][7].tolist()
    assert "item 'sku 7/ä'" in run("get-item", store_url, TEXTS[7]).stdout
    for command in ("get-user", "get-item"):
        assert run(command, store_url, "unknown").exit_code == 4
        refused = run(command, store_url, "x" * (LONGEST + 1))
        assert refused.exit_code == 2
        assert "129 characters" in refused.stderr
    assert json.loads(run("stats", store_url, "--json").stdout)["ids"] == "mapped"

    async def kept(store: FeatureStore) -> None:
        assert store.text_ids is not None
        numbers = store.text_ids.numbers(TEXTS)
        assert (await store.items(numbers)).rows.tobytes() == ROWS.tobytes()
        assert await store.item_texts(numbers) == TEXTS
        users = store.text_ids.numbers(list(USERS)).tolist()
        assert await store.user_texts(users) == ["ann", "b\tb", None]  # no text without clicks

    changing(store_url, kept)


def test_the_kind_of_ids_is_the_stores(
    tmp_path: Path, store_url: str, schema: list[Any], sources: list[Any]
) -> None:
    assert run("load", store_url, *schema, *sources).exit_code == 0
    assert run("load", store_url, *schema, *sources).exit_code == 0
    assert run("load", store_url, *schema[:2], *sources).exit_code == 0  # --schema alone
    assert run("load", store_url, *sources).exit_code == 0
    for given in (sources, sources[2:]):
        refused = run("load", store_url, *schema[:2], "--ids", "numeric", *given)
        assert refused.exit_code == 1
        assert "its ids are mapped, not numeric" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    numeric = f"lmdb://{tmp_path / 'numeric'}"
    for given in (sources, sources[2:]):
        refused = run("load", numeric, *schema[:2], *given)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
        assert "not integers; a store made with `load --ids mapped` takes texts" in refused.stderr
    assert not (tmp_path / "numeric").exists()  # a store of the wrong kind could not be mended
    users = write(tmp_path / "numbers.parquet", {"user_id": [1], "item_seq": [[2]]})
    assert run("load", numeric, *schema[:2], "--histories", users).exit_code == 0
    refused = run("load", numeric, *schema, *sources)
    assert "its ids are numeric, not mapped" in refused.stderr
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (pa.array(["a", "b", "ä"], pa.large_string()), ["a", "b", "ä"]),
        (pa.array(["a", "b", "c"], pa.string_view()), ["a", "b", "c"]),
        (pa.array(["a", "b", "c"]).dictionary_encode(), ["a", "b", "c"]),
        (pa.array([UUID(int=at).bytes for at in (1, 2, 3)], pa.uuid()),
         [str(UUID(int=at)) for at in (1, 2, 3)]),
        (pa.array([UUID(int=at).bytes for at in (1, 2, 3)], pa.binary(16)),
         [str(UUID(int=at)) for at in (1, 2, 3)]),
        (pa.array([2**64 - 1, 5, 7], pa.uint64()), [str(2**64 - 1), "5", "7"]),
        (pa.array([-1, -5, 7]), ["-1", "-5", "7"]),
        (pa.array([1.0, 2.0, 3.0]), ["1", "2", "3"]),
    ],
)  # fmt: skip
def test_ids_of_every_type_are_texts(
    tmp_path: Path, schema: list[Any], ids: pa.Array, texts: list[str]
) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    items = write(tmp_path / "items.parquet", items_of(ids, 3))
    plain = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
    storage = plain.storage if isinstance(plain, pa.ExtensionArray) else plain
    lists = pa.ListArray.from_arrays([0, 2, 3, 3], storage)
    users = write(tmp_path / "valid.parquet", {"user_id": ids, "item_seq": lists})
    loaded = run("load", url, *schema, "--items", items, "--histories", users, "--json")
    assert loaded.exit_code == 0, loaded.output
    assert history(url, texts[0]) == [texts[1], texts[0]]
    assert history(url, texts[1]) == [texts[2]]
    assert run("get-item", "--", url, texts[2]).exit_code == 0
    assert checked(tmp_path, url, ["--items", items, "--histories", users])[0] == 0


def test_lists_of_categories_and_of_string_views_are_read(
    tmp_path: Path, schema: list[Any]
) -> None:
    url, rows = f"lmdb://{tmp_path / 'store'}", [["a", "b"], ["", "c"], None, ["b"]]
    categories = pa.array([text for row in rows for text in row or ()]).dictionary_encode()
    offsets = pa.array([0, 2, 4, 4, 5], pa.int32())
    lists = pa.ListArray.from_arrays(
        offsets, categories, mask=pa.array([False, False, True, False])
    )
    views = pa.array(rows, pa.list_view(pa.string_view()))
    users = pa.array([f"u{at}" for at in range(4)])
    given = [
        write(tmp_path / "a.parquet", {"user_id": users, "item_seq": lists}, row_group_size=2),
        write(tmp_path / "b.parquet", {"user_id": pc.utf8_upper(users), "item_seq": views}),
    ]
    options = [option for path in given for option in ("--histories", path)]
    assert run("load", url, *schema, *options).exit_code == 3  # one null list each
    for user in ("u", "U"):
        found = [history(url, f"{user}{at}") for at in range(4)]
        assert found == [["b", "a"], ["c"], None, ["b"]]


def test_a_text_that_is_no_id_rejects_its_row_with_the_reason(
    tmp_path: Path, schema: list[Any]
) -> None:
    url, long = f"lmdb://{tmp_path / 'store'}", "x" * (LONGEST + 1)
    spoilt = pa.array([b"a", b"\xff", b"", long.encode(), None, b"a", b"z" * LONGEST])
    ids = pa.Array.from_buffers(pa.string(), 7, spoilt.buffers())
    items = write(tmp_path / "items.parquet", items_of(ids, 7))
    users = {
        "user_id": ["a", "", None, long, "e", "f", "g", "h"],
        "item_seq": [["a"], ["a"], ["a"], ["a"], [long], ["a", ""], None, ["a", None, "a"]],
    }
    histories = write(tmp_path / "valid.parquet", users)
    loaded = run("load", url, *schema, "--items", items, "--histories", histories)
    assert loaded.exit_code == 3
    length = f"characters instead of 1 to {LONGEST}"
    padded = "ends in padding, which belongs on the left: the newest item is last"
    assert rejected(tmp_path) == [
        (1, "item_id", "not Unicode text (UTF-8)"),
        (2, "item_id", f"0 {length}"),
        (3, "item_id", f"129 {length}"),
        (4, "item_id", "null"),
        (5, "item_id", "id a repeated"),
        (1, "user_id", f"0 {length}"),
        (2, "user_id", "null"),
        (3, "user_id", f"129 {length}"),
        (4, "item_seq", f"129 {length}"),
        (5, "item_seq", padded),
        (6, "item_seq", "null"),
    ]
    assert "1 empty ids inside histories" in loaded.stderr
    assert history(url, "h") == ["a", "a"]
    assert run("get-item", url, "z" * LONGEST).exit_code == 0


def test_zero_is_padding_in_columns_of_integers_alone(tmp_path: Path, schema: list[Any]) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    integers = pa.array([[0, 0, 5], [0]], pa.list_(pa.int64()))
    texts = pa.array([["0", "5"], ["0"]])
    one = write(tmp_path / "a.parquet", {"user_id": ["a", "b"], "item_seq": integers})
    two = write(tmp_path / "b.parquet", {"user_id": ["c", "d"], "item_seq": texts})
    loaded = run("load", url, *schema, "--histories", one, "--histories", two)
    assert loaded.exit_code == 0, loaded.output
    assert [history(url, user) for user in "abcd"] == [["5"], None, ["5", "0"], ["0"]]


def test_files_are_joined_by_text_and_messages_name_it(tmp_path: Path, schema: list[Any]) -> None:
    made = items_of(TEXTS)
    narrow = {name: made[name] for name in ("item_id", "sku", "brand", "price", "stock_level")}
    one = write(tmp_path / "a.parquet", narrow)
    order = np.random.default_rng(5).permutation(COUNT - 1)
    wide = pa.table({name: made[name] for name in ("item_id", "colours", "picture")}).take(order)
    again = pa.concat_tables([wide, wide.slice(0, 1), wide.slice(0, 1)])
    names = again.column("item_id").to_pylist()
    names[-1] = "x\ny"
    again = again.set_column(0, "item_id", pa.chunked_array([names]))
    two = write(tmp_path / "b.parquet", {name: again.column(name) for name in again.column_names})
    url = f"lmdb://{tmp_path / 'store'}"
    loaded = run("load", url, *schema, "--items", one, "--items", two, "--json")
    told = json.loads(loaded.stdout)
    assert (told["items"], told["joined_to_nothing"]) == (COUNT - 1, 1)
    assert [told["warnings"][0].split(": ")[-1]] == ["not loaded ('x\\ny')"]
    assert rejected(tmp_path) == [
        (COUNT - 1, "item_id", f"id {names[0]!r} repeated"),
        (COUNT - 1, "colours", f"id {TEXTS[-1]!r} is not in {two}"),
    ]
    for text in TEXTS[:-1]:
        item = json.loads(run("get-item", url, text, "--json").stdout)["features"]
        assert item["colours"] == ROWS["colours"][TEXTS.index(text)].tolist()
        assert item["brand"] == ROWS["brand"][TEXTS.index(text)]


def test_the_identity_features_column_stays_an_index(tmp_path: Path, schema: list[Any]) -> None:
    url = f"lmdb://{tmp_path / 'store'}"
    made = items_of(TEXTS)
    del made["item_id"]
    confused = write(tmp_path / "confused.parquet", {**made, "sku": TEXTS})
    refused = run("load", url, *schema, "--items", confused)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert "the schema's feature sku is an integer, the index" in refused.stderr
    assert "--id-column" in refused.stderr
    items = write(tmp_path / "items.parquet", {**made, "code": TEXTS})
    loaded = run("load", url, *schema, "--items", items, "--id-column", "code")
    assert loaded.exit_code == 0, loaded.output
    item = json.loads(run("get-item", url, TEXTS[2], "--json").stdout)
    assert item["features"]["sku"] == ROWS["sku"][2]
    out = tmp_path / "out"
    assert "--id-column" in run("export", url, out, "--id-column", "sku").stderr
    assert run("export", url, out, "--id-column", "code").exit_code == 0
    again = ["--items", out / "items.parquet", "--id-column", "code"]
    assert run("check", url, *again, "--differences", tmp_path / "d").exit_code == 0


def test_two_texts_of_one_number_are_refused_in_one_line(
    tmp_path: Path, schema: list[Any], sources: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TextIds, "_digest", lambda _, text: (len(text) * 2).to_bytes(8))
    for batch in (loading.BATCH_ROWS, 1):  # seen in one batch, or by the store
        monkeypatch.setattr(loading, "BATCH_ROWS", batch)
        ids = ["a", "bb", "c"] if batch == 1 else ["a", "c", "bb"]
        items = write(tmp_path / "items.parquet", items_of(ids, 3))
        url = f"lmdb://{tmp_path / str(batch)}"
        refused = run("load", url, *schema, "--items", items)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1), refused.stderr
        assert "'c' has the number 1, which is that of 'a'" in refused.stderr


def test_a_mapped_store_is_compared_and_differences_name_texts(
    tmp_path: Path, store_url: str, schema: list[Any], sources: list[Any]
) -> None:
    assert run("load", store_url, *schema, *sources).exit_code == 0
    code, told, _ = checked(tmp_path, store_url, sources)
    assert (code, told["items"], told["histories"]) == (0, COUNT, 3)

    async def change(store: FeatureStore) -> None:
        assert store.text_ids is not None
        number = store.text_ids.number
        await store.delete_items(store.text_ids.numbers(TEXTS[:1]))
        await store.patch_item(number(TEXTS[1]), lambda row: row.__setitem__("stock_level", 9))
        await store.name_items({number("new"): "new"})
        await store.put_items(store.text_ids.numbers(["new", "nameless"]), random_rows(SHOP, 2))
        clicks = store.text_ids.numbers([TEXTS[9], "new", "unheard of"])
        await store.put_histories({number("ann"): clicks}, {number("ann"): "ann"})

    changing(store_url, change)
    code, told, differences = checked(tmp_path, store_url, sources)
    assert code == 3
    unheard, nameless = differences[-1]["what"], differences[2:4]
    assert sorted(str(d["id"]) for d in nameless if d["id"] != "new")[0].isdigit()
    assert {(d["kind"], d["id"], d["what"]) for d in differences if isinstance(d["id"], str)} == {
        ("history", "ann", unheard),
        ("item", "new", "in no file"),
        ("item", TEXTS[0], "missing"),
        ("item", TEXTS[1], "different: stock_level"),
    }
    assert unheard.startswith(f"['{TEXTS[9]}', 'new', ")
    assert unheard.endswith(f" instead of ['{TEXTS[4]}', '{TEXTS[3]}']")
    shown = run("check", store_url, *sources, "--differences", tmp_path / "d").stderr
    assert f"item {TEXTS[0]!r}: missing" in shown
    assert "without its text): in no file" in shown


def test_an_export_of_a_mapped_store_is_loaded_into_another(
    tmp_path: Path, store_url: str, schema: list[Any], sources: list[Any]
) -> None:
    assert run("load", store_url, *schema, *sources).exit_code == 0
    folder = tmp_path / "out"
    exported = run("export", store_url, folder, "--json")
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.stdout)["without_text"] == 0
    files = ["--items", folder / "items.parquet", "--histories", folder / "histories.parquet"]
    again = f"lmdb://{tmp_path / 'again'}"
    assert run("load", again, "--schema", folder / "schema.yaml", *files).exit_code == 1
    loaded = run("load", again, "--schema", folder / "schema.yaml", "--ids", "mapped", *files)
    assert loaded.exit_code == 0, loaded.output
    for url, given in ((again, sources), (store_url, files)):
        assert checked(tmp_path, url, given)[0] == 0
    assert history(again, "b\tb") == [TEXTS[5]]


def test_numbers_without_a_text_are_left_out_of_an_export_and_counted(
    tmp_path: Path, store_url: str, schema: list[Any], sources: list[Any]
) -> None:
    assert run("load", store_url, *schema, *sources).exit_code == 0

    async def change(store: FeatureStore) -> None:
        assert store.text_ids is not None
        await store.put_items(store.text_ids.numbers(["nameless"]), random_rows(SHOP, 1))
        await store.append(store.text_ids.number("ann"), [7])

    changing(store_url, change)
    exported = run("export", store_url, tmp_path / "out")
    assert exported.exit_code == 3
    [line] = [line for line in exported.stderr.splitlines() if line.startswith("warning")]
    assert line.startswith("warning: 2 items, users and clicks left out")
    assert " 7" in line
    assert history(store_url, "ann") == [7, TEXTS[4], TEXTS[3]]  # an integer: no text
    assert "(number 7, without its text)" in run("get-user", store_url, "ann").stdout


def test_a_stopped_load_of_a_mapped_store_goes_on(
    tmp_path: Path, store_url: str, schema: list[Any], sources: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(loading, "BATCH_ROWS", 7)
    put = loading.LoadJob._put

    async def stop_at_the_third(job: Any, batch: Any, report: Any) -> None:
        if report.row == 14:
            raise OSError("stopped")
        await put(job, batch, report)

    monkeypatch.setattr(loading.LoadJob, "_put", stop_at_the_third)
    assert run("load", store_url, *schema, *sources).exit_code == 1
    monkeypatch.setattr(loading.LoadJob, "_put", put)
    told = json.loads(run("load", store_url, *schema, *sources, "--json").stdout)
    assert (told["items"], told["histories"]) == (COUNT, 3)
    assert checked(tmp_path, store_url, sources)[0] == 0
