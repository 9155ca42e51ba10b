"""The small world with user and request features, and levels on history items."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import connect
from feature_store.contract import Ids, UserRows
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from model_export.build import build
from model_export.quality.golden_cases import network_answer, network_items
from model_export.quality.random_network import random_network
from tests.service.mapped_world import MappedWorld, make_mapped, text_of
from tests.service.world import World, make_world, on_another_store
from training.qin import QIN, QINSizes

LEVELLED = FeatureSchema.from_yaml(
    """
name: levelled
history_length: 12
user:
  - {name: user_id, kind: categorical, vocabulary: 70001, width: 4}
  - {name: country, kind: categorical, vocabulary: 5, width: 3}
  - {name: followed, kind: categorical_list, vocabulary: 90, slots: 3, width: 3}
  - {name: taste, kind: dense, size: 4, width: 3}
user_identity: user_id
request:
  - {name: device, kind: categorical, vocabulary: 6, width: 3}
  - {name: hour, kind: numeric, width: 2}
item:
  - {name: item_id, kind: categorical, vocabulary: 500, width: 8}
  - {name: item_tags, kind: categorical_list, vocabulary: 40, slots: 4, width: 8}
  - {name: content, kind: dense, size: 6, width: 8, storage: float16}
  - {name: likes_level, kind: categorical, vocabulary: 11, width: 8}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 8}
  - {name: views_level, vocabulary: 7, width: 8}
""",
    source="levelled",
)
SIZES = QINSizes(attention_width=24, layers=3, rows=2, output_bias=True)
USER_FEATURES, REQUEST_FEATURES = ["user_id", "country", "followed", "taste"], ["device", "hour"]


@dataclass(frozen=True, slots=True)
class UserWorld:
    """A world and the records of its users, some of whom have no history."""

    world: World
    records: dict[int, UserRows]  # (1,) of each

    def exact(
        self,
        user: int,
        candidates: Ids,
        features: Mapping[str, float | None] | None = None,
        *,
        history: Ids | None = None,
        context: Mapping[str, list[int]] | None = None,
        network: QIN | None = None,
    ) -> NDArray[np.floating[Any]]:
        """(C,) by the network in float64; ``history`` and ``context`` in place of the stored."""
        world = self.world
        network = copy.deepcopy(network or world.network).double()
        schema = network.schema
        past = world.users.get(user, world.ids[:0]) if history is None else history
        order = np.argsort(world.ids)
        used, where = np.unique(np.concatenate([past, candidates]), return_inverse=True)
        stored = world.rows[order[np.searchsorted(world.ids[order], used)]]
        rows = np.zeros(len(stored), schema.item_dtype)
        for name in rows.dtype.names or ():
            rows[name] = stored[name]
        items = {
            name: value.double() if value.is_floating_point() else value
            for name, value in network_items(schema, rows).items()
        }
        positions, asked = np.split(where.astype(np.int32), [len(past)])
        columns = [(context or {}).get(f.name, rows[f.name][asked]) for f in schema.context]
        levels = np.stack([np.asarray(column, np.int32) for column in columns], 1)
        given = {name: value for name, value in (features or {}).items() if value is not None}
        record = self.records.get(user)
        return network_answer(network, items, positions, asked, levels, user=record, features=given)


def make_users(count: int, random: np.random.Generator, schema: FeatureSchema) -> UserRows:
    """Indices from -1 to beyond the vocabulary, empty lists and zeros among them."""
    rows = np.zeros(count, schema.user_dtype)
    rows["user_id"] = random.choice([-1, 0, 1, 69_999, 70_000, 70_001, 2**31 - 1], count)
    rows["country"] = random.integers(0, 7, count)
    rows["followed"] = random.integers(0, 92, (count, 3)) * (random.random((count, 3)) < 0.6)
    rows["taste"] = random.normal(0, 1, (count, 4))
    return rows


def make_user_world(folder: Path) -> UserWorld:
    world = make_world(folder, LEVELLED, SIZES, seed=11)
    users = [*range(1, 20), *range(100, 110), 2**63 - 1]
    rows = make_users(len(users), np.random.default_rng(5), LEVELLED)
    asyncio.run(put_users(world.store, dict(zip(users, np.split(rows, len(rows)), strict=True))))
    return UserWorld(world, dict(zip(users, np.split(rows, len(rows)), strict=True)))


async def add_levels(plain: World, version: str = "levels-1", users: int = 4) -> UserWorld:
    """Add user features, records and a version that has them to the store and the models of a plain
    world, as a deployment does."""
    network, numbers = random_network(LEVELLED, SIZES), np.arange(1, users + 1)
    rows = make_users(users, np.random.default_rng(3), LEVELLED)
    options = StoreOptions(budget_ms=5_000)
    store = await connect(plain.store, LEVELLED, create=True, options=options)
    await store.put_users(numbers, rows)
    await store.close()
    build(network, plain.models, version=version)
    records = dict(zip(numbers.tolist(), np.split(rows, users), strict=True))
    return UserWorld(replace(plain, network=network), records)


def on_store(users: UserWorld, url: str) -> UserWorld:
    """The same, its items, histories and users in the store at ``url``."""
    world = on_another_store(users.world, url)
    asyncio.run(put_users(url, users.records))
    return UserWorld(world, {user: row.copy() for user, row in users.records.items()})


async def put_users(url: str, records: Mapping[int, UserRows]) -> None:
    store = await connect(url, options=StoreOptions(budget_ms=5_000))
    await store.put_users(np.array(list(records), np.int64), np.concatenate([*records.values()]))
    await store.close()


def make_mapped_users(users: UserWorld, folder: Path) -> MappedWorld:
    """The same by text ids."""
    mapped = make_mapped(users.world, folder)
    asyncio.run(_put_by_text(mapped, users))
    return mapped


async def _put_by_text(mapped: MappedWorld, users: UserWorld) -> None:
    store = await connect(mapped.store, options=StoreOptions(budget_ms=5_000))
    assert store.text_ids is not None
    texts = {store.text_ids.number(text_of(user)): text_of(user) for user in users.records}
    rows = np.concatenate([*users.records.values()])
    await store.put_users(np.array(list(texts), np.int64), rows, texts)
    await store.close()
