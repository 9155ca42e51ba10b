"""Contents go to a store as they changed, and its change feed names those items alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from typer.testing import CliRunner

from feature_store.connect import connect
from feature_store.contents import Origin, Wanted
from feature_store.contract import FOUND, FeatureStore, Ids
from feature_store.descriptions import Description
from feature_store.errors import StoreCorrupt, StoreUnavailable
from feature_store.options import IdKind, StoreOptions
from feature_store.parquet.columns import DataFileError
from feature_store.schema import FeatureSchema
from tests.text.content.conftest import FEATURE, ITEMS, SIZE
from text.__main__ import app
from text.content.embed import Embedding
from text.content.store import put_contents
from text.runtime.encoder import TextEncoder

SCHEMA = f"""
name: shop
history_length: 4
item:
  - {{name: level, kind: categorical, vocabulary: 4, width: 4}}
  - {{name: {FEATURE}, kind: dense, size: {SIZE}, width: 8, storage: float16}}
"""


@pytest.fixture(scope="module")
def table(content_bundle: Path, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table") / "items.parquet"
    Embedding(TextEncoder.open(content_bundle), catalogue, out, []).run()
    return out


async def opened(folder: Path, ids: IdKind = "numeric") -> FeatureStore:
    schema = FeatureSchema.from_yaml(SCHEMA, source="shop.yaml")
    return await connect(f"lmdb://{folder}", schema, create=True, options=StoreOptions(ids=ids))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FeatureStore]:
    store = await opened(tmp_path / "store")
    yield store
    await store.close()


def digest_of(table: Path) -> str:
    digests = pq.read_table(table)[f"{FEATURE}_digest"].drop_null()
    return str(digests[0].as_py())


async def put(store: FeatureStore, table: Path) -> dict[str, int]:
    report = await put_contents(store, table, Origin(FEATURE, digest_of(table)), SIZE)
    counts = ("written", "inserted", "same", "without", "not_in_store", "rejected")
    return {name: getattr(report, name) for name in counts if getattr(report, name)}


async def changed(store: FeatureStore, cursor: str) -> set[int]:
    found: set[int] = set()
    while len((changes := await store.changes(cursor)).ids):
        found |= set(changes.ids.tolist())
        cursor = changes.cursor
    return found


async def test_a_store_gets_what_differs_and_its_feed_names_that(
    store: FeatureStore, table: Path, tmp_path: Path
) -> None:
    assert await put(store, table) == {"inserted": ITEMS}
    cursor = (await store.changes(None)).cursor
    rows = pq.read_table(table)
    without = rows[f"{FEATURE}_digest"].null_count
    assert await put(store, table) == {"same": ITEMS - without, "without": without}
    assert await changed(store, cursor) == set()

    batch = await store.items(np.array(rows["item_id"].to_pylist()))
    _, lacks = batch.choose(Wanted(Origin(FEATURE, digest_of(table))))
    assert lacks.tolist() == rows[f"{FEATURE}_digest"].is_null().to_pylist()

    def shift(row: np.ndarray) -> None:
        row[FEATURE], row["level"] = row[FEATURE] + 1, 3

    have = rows.filter(rows[f"{FEATURE}_digest"].is_valid())["item_id"].to_pylist()
    for item in have[:2]:
        await store.patch_item(item, shift, Origin(FEATURE, digest_of(table)))
    cursor = (await store.changes(None)).cursor
    assert (await put(store, table))["written"] == 2
    assert await changed(store, cursor) == set(have[:2])
    batch = await store.items(np.array(have[:2]))
    assert (batch.rows["level"] == 3).all()  # another writer's feature stays
    stored = rows[FEATURE].to_pylist()[have[0] - 1]
    assert np.allclose(batch.rows[FEATURE][0], stored, rtol=1e-3)


async def test_a_vector_that_was_given_stays(store: FeatureStore, table: Path) -> None:
    await put(store, table)
    rows = pq.read_table(table)
    item = rows.filter(rows[f"{FEATURE}_digest"].is_valid())["item_id"].to_pylist()[0]

    def given(row: np.ndarray) -> None:
        row[FEATURE] = 7

    await store.patch_item(item, given)
    assert "written" not in await put(store, table)
    batch = await store.items(np.array([item]))
    assert (batch.rows[FEATURE] == 7).all()
    chosen, lacks = batch.choose(Wanted(Origin(FEATURE, digest_of(table))))
    assert not lacks[0]
    assert np.allclose(chosen[FEATURE][0], rows[FEATURE].to_pylist()[item - 1], rtol=1e-3)


async def test_an_item_without_content_keeps_the_stores(store: FeatureStore, table: Path) -> None:
    await put(store, table)
    rows = pq.read_table(table)
    without = rows.filter(rows[f"{FEATURE}_digest"].is_null())["item_id"].to_pylist()[0]

    def given(row: np.ndarray) -> None:
        row[FEATURE] = 7

    await store.patch_item(without, given)
    await put(store, table)
    assert ((await store.items(np.array([without]))).rows[FEATURE] == 7).all()


async def test_a_table_of_texts_alone_inserts_nothing(
    store: FeatureStore, table: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["level"]), bare)
    assert await put(store, bare) == {"not_in_store": ITEMS}
    await put(store, table)
    assert (await put(store, bare))["same"] > 0
    assert (await store.items(np.arange(1, 4))).rows["level"].tolist() == [0, 1, 2]


async def test_a_mapped_store_gets_the_texts_of_its_ids(table: Path, tmp_path: Path) -> None:
    store = await opened(tmp_path / "mapped", "mapped")
    try:
        rows = pq.read_table(table)
        names = [f"sku-{i}" for i in rows["item_id"].to_pylist()]
        named = rows.set_column(0, "item_id", [names])
        pq.write_table(named, tmp_path / "named.parquet")
        assert await put(store, tmp_path / "named.parquet") == {"inserted": ITEMS}
        assert store.text_ids is not None
        number = store.text_ids.number("sku-1")
        assert (await store.item_texts(np.array([number]))) == ["sku-1"]
        assert (await store.items(np.array([number]))).status[0] == FOUND
    finally:
        await store.close()


async def test_a_store_without_the_feature_is_refused(store: FeatureStore, table: Path) -> None:
    with pytest.raises(DataFileError, match="no dense item feature other of 8"):
        await put_contents(store, table, Origin("other", digest_of(table)), SIZE)


async def test_contents_of_a_second_digest_stand_beside_the_first(
    store: FeatureStore, table: Path
) -> None:
    await put(store, table)
    first, second = digest_of(table), "0123456789abcdef"
    report = await put_contents(store, table, Origin(FEATURE, second), SIZE)
    rows = pq.read_table(table)
    have = rows.filter(rows[f"{FEATURE}_digest"].is_valid())
    assert report.written == len(have)
    batch = await store.items(np.array(have["item_id"].to_pylist()))
    for digest in (first, second):
        chosen, lacks = batch.choose(Wanted(Origin(FEATURE, digest)))
        assert not lacks.any()
        assert np.allclose(chosen[FEATURE], np.array(have[FEATURE].to_pylist()), rtol=1e-3)


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[FeatureStore]:
    """A store that keeps texts."""
    schema = FeatureSchema.from_yaml(SCHEMA + "descriptions: true\n", source="shop.yaml")
    store = await connect(f"lmdb://{tmp_path / 'kept'}", schema, create=True)
    yield store
    await store.close()


def texts_of(table: Path) -> dict[int, dict[str, str]]:
    return {
        row["item_id"]: {lang: text for lang in ("en", "de") if (text := row[f"text_{lang}"])}
        for row in pq.read_table(table).to_pylist()
    }


async def kept_texts(store: FeatureStore, table: Path) -> dict[int, dict[str, str]]:
    ids = list(texts_of(table))
    return dict(zip(ids, await store.descriptions(np.array(ids)), strict=True))


def record_texts(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, failures: int = 0
) -> list[set[int]]:
    """Record the items of each write of texts, the first of which fail."""
    write, found = store.put_descriptions, list[set[int]]()

    async def put_descriptions(descriptions: Mapping[int, Description]) -> None:
        found.append(set(descriptions))
        if len(found) <= failures:
            raise StoreUnavailable("killed")
        await write(descriptions)

    monkeypatch.setattr(store, "put_descriptions", put_descriptions)
    return found


async def test_a_store_that_keeps_texts_gets_them(keeping: FeatureStore, table: Path) -> None:
    await put(keeping, table)
    assert await kept_texts(keeping, table) == texts_of(table)


async def test_a_rerun_writes_the_texts_of_items_that_a_killed_run_inserted(
    keeping: FeatureStore, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = record_texts(keeping, monkeypatch, failures=1)
    with pytest.raises(StoreUnavailable):
        await put(keeping, table)
    assert "inserted" not in await put(keeping, table)
    assert await kept_texts(keeping, table) == texts_of(table)
    before = list(found)
    await put(keeping, table)
    assert found == before  # equal texts are not written again


async def test_the_record_comes_before_its_texts_and_a_rerun_writes_both(
    keeping: FeatureStore, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(keeping, table)
    rows = pq.read_table(table)
    item = rows.filter(rows[f"{FEATURE}_digest"].is_valid())["item_id"].to_pylist()[0]
    values = [
        row | ({"text_en": "boots", FEATURE: [2.0] * SIZE} if row["item_id"] == item else {})
        for row in rows.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(values, rows.schema), tmp_path / "changed.parquet")
    found = record_texts(keeping, monkeypatch, failures=1)
    with pytest.raises(StoreUnavailable):
        await put(keeping, tmp_path / "changed.parquet")
    assert (await keeping.items(np.array([item]))).rows[FEATURE].tolist() == [[2.0] * SIZE]
    assert await kept_texts(keeping, table) == texts_of(table)
    assert "written" not in await put(keeping, tmp_path / "changed.parquet")
    assert found == [{item}, {item}]
    assert (await keeping.descriptions(np.array([item])))[0]["en"] == "boots"


@pytest.mark.parametrize("at", ["put_items", "patch_item", "descriptions"])
async def test_an_item_that_is_deleted_meanwhile_keeps_no_texts(
    at: str, keeping: FeatureStore, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(keeping, table)
    rows = pq.read_table(table)
    item = rows.filter(rows[f"{FEATURE}_digest"].is_valid())["item_id"].to_pylist()[0]
    call = getattr(keeping, at)

    async def delete_first(*given: Any) -> Any:
        await keeping.delete_items(np.array([item]))
        return await call(*given)

    with monkeypatch.context() as patched:
        patched.setattr(keeping, at, delete_first)
        await put_contents(keeping, table, Origin(FEATURE, "0123456789abcdef"), SIZE)
    assert await keeping.descriptions(np.array([item])) == [{}]


async def test_damaged_texts_are_written_again(
    keeping: FeatureStore, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(keeping, table)
    found = record_texts(keeping, monkeypatch)

    async def damaged(ids: Ids) -> list[dict[str, str]]:
        raise StoreCorrupt("texts of item 1: damaged; put them again")

    with monkeypatch.context() as patched:
        patched.setattr(keeping, "descriptions", damaged)
        await put(keeping, table)
    assert 1 in found[0]


async def test_a_password_of_the_store_is_not_printed(
    content_bundle: Path, catalogue: Path, tmp_path: Path, redis_url: str
) -> None:
    client = redis.Redis.from_url(redis_url.partition("?")[0])
    with client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">sesame", "~*", "&*", "+@all")
    url = redis_url.replace("redis://", "redis://shop:sesame@")
    schema = FeatureSchema.from_yaml(SCHEMA, source="shop.yaml")
    await (await connect(url, schema, create=True)).close()
    words = ["embed", str(content_bundle), str(catalogue), "--out", str(tmp_path / "out.parquet")]
    done = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--store", url])
    assert done.exit_code == 0, done.output
    assert "not in the store" in done.output
    assert "sesame" not in done.output


async def test_rows_that_the_store_rejects_show_in_the_exit_code(
    content_bundle: Path, tmp_path: Path
) -> None:
    """A pipeline goes by it, as by that of ``feature_store load``."""
    await (await opened(tmp_path / "store")).close()
    ids = [1, 1, -1]  # repeated, and negative
    table = {"item_id": ids, "text_en": ["a tree", "a house", "a cat"], "level": [1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    words = ["embed", str(content_bundle), str(tmp_path / "items.parquet")]
    words += ["--out", str(tmp_path / "out.parquet")]
    store = ["--store", f"lmdb://{tmp_path / 'store'}"]
    for more in ([], ["--json"]):
        done = await asyncio.to_thread(CliRunner().invoke, app, [*words, *store, *more])
        assert done.exit_code == 3, done.output
    assert json.loads(done.stdout.splitlines()[-1])["store"]["rejected"] == 2
    assert CliRunner().invoke(app, words).exit_code == 0
