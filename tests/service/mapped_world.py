"""The small world again, its ids texts: in a mapped store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from feature_store import connect
from feature_store.contract import Ids
from feature_store.options import StoreOptions
from tests.service.world import World

FORMS = (  # of the texts, in turn
    lambda number: str(UUID(int=number)),
    lambda number: f"sku:{number}",
    lambda number: f'クリック/{number}, "é\\%2F" 🎬',
    lambda number: f"{number}",
    lambda number: f" {number}\t".ljust(128, "é"),
)


def text_of(number: int) -> str:
    """The text id of a user or item of the numeric world."""
    return FORMS[number % len(FORMS)](number)


@dataclass(frozen=True, slots=True)
class MappedWorld:
    """The numeric world, and the store that has the same items and users by text ids."""

    numeric: World
    store: str  # URL
    numbers: dict[str, int]  # of each text in the mapped store

    @property
    def models(self) -> Path:
        return self.numeric.models

    @property
    def items(self) -> list[str]:
        return list(map(text_of, self.numeric.ids.tolist()))

    @property
    def cold(self) -> set[str]:
        return set(map(text_of, self.numeric.cold_ids))

    def history(self, user: int) -> list[str]:
        """Of the user with this number in the numeric world, newest first."""
        return list(map(text_of, self.numeric.users[user].tolist()))

    def numbered(self, texts: list[str]) -> Ids:
        return np.array([self.numbers[text] for text in texts], np.int64)


def make_mapped(world: World, folder: Path, text_of: Callable[[int], str] = text_of) -> MappedWorld:
    return mapped_in(world, f"lmdb://{folder / 'mapped'}", text_of)


def mapped_in(world: World, url: str, text_of: Callable[[int], str] = text_of) -> MappedWorld:
    """Put the world by text ids into a new store at ``url``."""
    return MappedWorld(world, url, asyncio.run(_load(world, url, text_of)))


async def _load(world: World, url: str, text_of: Callable[[int], str]) -> dict[str, int]:
    options = StoreOptions(budget_ms=5_000, ids="mapped")
    store = await connect(url, world.schema, create=True, options=options)
    assert store.text_ids is not None
    number = store.text_ids.number
    items = {text: number(text) for text in map(text_of, world.ids.tolist())}
    users = {text: number(text) for text in map(text_of, world.users)}
    await store.name_items({number: text for text, number in items.items()})
    await store.put_items(np.array(list(items.values()), np.int64), world.rows)
    histories = {
        users[text_of(user)]: np.array([items[text_of(i)] for i in past.tolist()], np.int64)
        for user, past in world.users.items()
    }
    await store.put_histories(histories, {number: text for text, number in users.items()})
    await store.close()
    return users | items
