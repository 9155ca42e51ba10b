"""Item changes are announced with the write, or before and after it: a writer may die between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from feature_store.contract import MISSING
from feature_store.errors import StoreUnavailable
from feature_store.redis import announcer as redis_announcer
from feature_store.redis.announcer import Announcer
from feature_store.redis.replies import IDS
from feature_store.redis.store import RedisStore
from tests.feature_store.redis.test_layout import calls
from tests.feature_store.redis_servers import Server
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

WITHIN_S = 20.0


@pytest.fixture
async def spread(redis_cluster_url: str) -> AsyncIterator[RedisStore]:
    """A store whose items and change log are in different slots."""
    store = await connect(redis_cluster_url, SHOP, create=True)
    assert isinstance(store, RedisStore)
    yield store
    await store.close()


async def told(store: RedisStore, cursor: str) -> tuple[list[int], list[int]]:
    """(about to be written, written) since the cursor."""
    soon: list[int] = []
    written: list[int] = []
    while True:
        answer = await store.changes(cursor)
        soon += answer.soon.tolist()
        written += answer.ids.tolist()
        if answer.cursor == cursor:
            return soon, written
        cursor = answer.cursor


class Failing:
    """Announcements of what is written fail as often as is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int, field: bytes = IDS) -> None:
        self.left = times
        real = Announcer._tell

        async def tell(announcer: Announcer, item_ids: Sequence[int], told: bytes) -> None:
            if told == field and self.left:
                self.left -= 1
                raise StoreUnavailable("the node of the change log does not answer")
            await real(announcer, item_ids, told)

        monkeypatch.setattr(Announcer, "_tell", tell)


async def test_in_a_cluster_an_item_is_announced_before_and_after(spread: RedisStore) -> None:
    start = (await spread.changes(None)).cursor
    await spread.put_items(ids(3, 4), random_rows(SHOP, 2))
    await spread.patch_item(4, lambda row: row.__setitem__("sku", 7))
    await spread.delete_items(ids(3))
    assert await told(spread, start) == ([3, 4, 4, 3], [3, 4, 4, 3])


async def test_an_announcement_that_fails_is_counted_and_repeated(
    spread: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_announcer, "REPEATED_EVERY_S", 0.05)
    start = (await spread.changes(None)).cursor
    Failing(monkeypatch, times=3)
    await spread.put_items(ids(3), random_rows(SHOP, 1))  # it is written, so this is no failure
    assert (await told(spread, start)) == ([3], [])
    async with asyncio.timeout(WITHIN_S):
        while (await told(spread, start))[1] != [3]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert spread.odd_replies == 3


async def test_what_is_untold_is_told_when_the_store_is_closed(
    redis_cluster_url: str, spread: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = (await spread.changes(None)).cursor
    Failing(monkeypatch, times=1)
    await spread.put_items(ids(3), random_rows(SHOP, 1))
    await spread.close()
    again = await connect(redis_cluster_url, SHOP)
    assert isinstance(again, RedisStore)
    assert await told(again, start) == ([3], [3])
    await again.close()


async def test_what_cannot_be_announced_before_is_not_written(
    spread: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, times=1, field=b"soon")
    with pytest.raises(StoreUnavailable):
        await spread.put_items(ids(3), random_rows(SHOP, 1))
    assert (await spread.items(ids(3))).status.tolist() == [MISSING]


async def test_a_write_that_fails_is_announced_too(
    spread: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been applied in part, or may be yet."""
    start = (await spread.changes(None)).cursor
    real, failures = spread._client.bulk, 1

    async def bulk(commands: Sequence[object], batch: int = 512) -> object:
        nonlocal failures
        if failures and batch != 512:
            failures -= 1
            raise StoreUnavailable("no answer in time", unknown=True)
        return await real(commands, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(spread._client, "bulk", bulk)
    with pytest.raises(StoreUnavailable):
        await spread.put_items(ids(3), random_rows(SHOP, 1))
    assert await told(spread, start) == ([3], [3])


async def test_one_server_writes_and_announces_in_one_step(redis: Server, redis_url: str) -> None:
    store = await connect(redis_url, SHOP, create=True)
    assert isinstance(store, RedisStore)
    await store.put_items(ids(4, 5), random_rows(SHOP, 2))
    start = (await store.changes(None)).cursor
    plain = redis.client()
    plain.config_resetstat()
    await store.put_items(ids(3, 3, 67), random_rows(SHOP, 3))
    assert await store.delete_items(ids(4, 99)) == 1
    assert calls(redis) == {"eval": 2, "xadd": 2}
    plain.config_resetstat()
    await store.patch_item(5, lambda row: row.__setitem__("sku", 7))
    assert calls(redis) == {"get": 2, "eval": 1, "xadd": 1}
    assert await told(store, start) == ([], [3, 3, 67, 4, 99, 5])
    found = await store.items(ids(3, 5))
    assert found.rows[:1].tobytes() == random_rows(SHOP, 3)[1:2].tobytes()
    assert found.rows["sku"].tolist()[1] == 7
    assert await store.count_items() == 3
    await store.close()
