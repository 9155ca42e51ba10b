"""What every store promises of items' texts, unchanged on each backend."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from feature_store import FeatureStore
from feature_store.descriptions import decode_description, encode_description
from feature_store.errors import StoreCorrupt, StoreMismatch
from feature_store.schema import FeatureSchema
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

DESCRIBED = SHOP.model_copy(update={"descriptions": True})
# In another process: an LMDB folder is open only once in each.
LOAD = """
import asyncio, sys
from tests.feature_store.stores import connect
from tests.feature_store.test_descriptions_contract import DESCRIBED

async def load():
    await (await connect(sys.argv[1], DESCRIBED, create=True)).close()

asyncio.run(load())
"""
SHOES = {"de": "Rote Schuhe 👟", "en": "red shoes"}


@pytest.fixture
async def described(store_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(store_url, DESCRIBED, create=True)
    yield opened
    await opened.close()


async def test_texts_are_kept_by_language_and_replaced_whole(described: FeatureStore) -> None:
    await described.put_descriptions({3: SHOES, 67: {"und": "x"}, 4: {"en": "hat"}})
    assert await described.descriptions(ids(67, 5, 3)) == [{"und": "x"}, {}, SHOES]
    await described.put_descriptions({3: {"en": "boots"}, 4: {}})
    assert await described.descriptions(ids(3, 4)) == [{"en": "boots"}, {}]
    assert await described.descriptions(ids()) == []
    await described.put_descriptions({})


async def test_texts_go_with_their_item(described: FeatureStore) -> None:
    await described.put_items(ids(3, 4), random_rows(SHOP, 2))
    await described.put_descriptions({3: SHOES, 4: SHOES})
    assert await described.delete_items(ids(3)) == 1
    assert await described.descriptions(ids(3, 4)) == [{}, SHOES]


async def test_a_whole_put_leaves_them(described: FeatureStore) -> None:
    await described.put_descriptions({3: SHOES})
    await described.put_items(ids(3), random_rows(SHOP, 1))
    assert await described.descriptions(ids(3)) == [SHOES]


async def test_a_store_keeps_none_unless_its_schema_says_so(store_url: str) -> None:
    plain = await connect(store_url, SHOP, create=True)
    with pytest.raises(StoreMismatch, match="keeps no texts"):
        await plain.put_descriptions({3: SHOES})
    assert await plain.descriptions(ids(3)) == [{}]
    await plain.close()
    served = await connect(store_url, DESCRIBED)  # a model's schema decides nothing
    assert not served.schema.descriptions
    with pytest.raises(StoreMismatch, match="keeps no texts"):
        await served.put_descriptions({3: SHOES})
    await served.close()
    loaded = await connect(store_url, DESCRIBED, create=True)  # a load does
    await loaded.put_descriptions({3: SHOES})
    await loaded.close()
    again = await connect(store_url, SHOP)
    assert again.schema.descriptions
    assert await again.descriptions(ids(3)) == [SHOES]
    await again.close()


async def test_texts_that_a_load_elsewhere_has_added_are_kept_after_a_refresh(
    store_url: str,
) -> None:
    store = await connect(store_url, SHOP, create=True)
    await store.put_items(ids(3, 4), random_rows(SHOP, 2))
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", LOAD, store_url], check=True, timeout=60
    )
    assert (await store.refresh_schema()).descriptions
    await store.put_descriptions({3: SHOES, 4: SHOES, 5: {}})
    assert await store.descriptions(ids(3, 4, 5)) == [SHOES, SHOES, {}]
    await store.delete_items(ids(3))
    await store.close()
    again = await connect(store_url, SHOP)
    assert await again.descriptions(ids(3, 4)) == [{}, SHOES]
    await again.close()


def test_a_schema_without_texts_is_written_as_before() -> None:
    assert "descriptions" not in SHOP.to_yaml()
    assert FeatureSchema.from_yaml(DESCRIBED.to_yaml(), source="yaml").descriptions
    assert DESCRIBED.layout == SHOP.layout


@pytest.mark.parametrize("record", [b"", b"{", b"[1]", b'{"de": 3}', b"\xff"])
def test_damaged_texts_name_their_item(record: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="texts of item 7: damaged"):
        decode_description(7, record)
    assert decode_description(7, encode_description(SHOES)) == SHOES
    assert decode_description(7, None) == {}
