"""What a process reads of its fleet may be older than what it was told itself meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from feature_store.contract import FeatureStore
from tests.service.houses import opened
from tests.service.world import World

FAR = 30.0  # seconds


class Slow:
    """A store whose answer to the first question about the fleet's version is on its way."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.read, self.arrive, self.again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get_note(self, note: str) -> bytes | None:
        content = await self._store.get_note(note)
        if note.endswith("/wanted"):
            if self.read.is_set():
                self.again.set()
            self.read.set()
            await self.arrive.wait()
        return content


async def test_a_verb_is_not_undone_by_what_was_read_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, fleet="order") as house, asyncio.timeout(FAR):
        obeyed: list[Any] = []

        async def obey(wanted: Any) -> None:
            obeyed.append(wanted)

        await house.fleet.publish()
        slow = Slow(house.store)
        monkeypatch.setattr(house.swap, "obey", obey)
        monkeypatch.setattr(house.fleet, "_store", slow)
        await slow.read.wait()
        await house.fleet.publish()
        slow.arrive.set()
        await slow.again.wait()
        assert obeyed == []
