"""A small real world to serve: a random network, its bundle, a catalogue, users, an LMDB store."""

from __future__ import annotations

import asyncio
import copy
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store import connect
from feature_store.contract import Ids, ItemRows
from feature_store.options import StoreOptions
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from model_export.build import build
from model_export.bundle.bundle import Bundle
from model_export.quality.golden_cases import network_answer, network_items
from model_export.quality.random_network import random_network
from tests.service.small_schema import SMALL as SMALL
from tests.session_folders import session_folder
from training.qin import QIN, QINSizes

SMALL_SIZES = QINSizes(attention_width=24, layers=3, rows=2)

VERSION = "small-1"
COLD_SHARE = 0.1  # of the items: no index, or one beyond the vocabulary
SPARSE_SHARE = 0.2  # of the items: ids anywhere in 63 bits
UNTAGGED_SHARE = 0.1
MOST_LEVEL_NOISE = 3  # stored context levels go this far beyond the model's vocabulary


@dataclass(frozen=True, slots=True)
class World:
    """What is served, and what the truth about it is."""

    network: QIN
    models: Path  # a folder of bundles
    bundle: Bundle
    store: str  # URL
    ids: Ids  # (N,) every item in the store
    rows: ItemRows  # (N,) their records
    users: dict[int, Ids]  # stored histories, newest first

    @property
    def schema(self) -> FeatureSchema:
        return self.network.schema

    @property
    def cold_ids(self) -> set[int]:
        index = self.rows["item_id"]
        vocabulary = next(f.vocabulary for f in self.schema.item if isinstance(f, Categorical))
        return set(self.ids[(index == 0) | (index >= vocabulary)].tolist())

    def answer(
        self, history: Ids, candidates: Ids, context: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        """(C,) by the PyTorch network itself; every id must be in the catalogue."""
        order = np.argsort(self.ids)
        used, where = np.unique(np.concatenate([history, candidates]), return_inverse=True)
        rows = self.rows[order[np.searchsorted(self.ids[order], used)]]
        past, asked = np.split(where.astype(np.int32), [len(history)])
        if context is None:
            context = np.stack([rows[f.name][asked] for f in self.schema.context], 1)
        return network_answer(self.network, network_items(self.schema, rows), past, asked, context)


def make_world(
    folder: Path,
    schema: FeatureSchema = SMALL,
    sizes: QINSizes = SMALL_SIZES,
    *,
    items: int = 400,
    users: int = 30,
    seed: int = 7,
    network: QIN | None = None,
) -> World:
    """``network``: a trained one in place of random weights for ``schema`` and ``sizes``."""
    if network is None:
        network, bundle = random_published(schema, sizes, seed, folder / "models")
    else:
        bundle = build(network, folder / "models", version=VERSION)
    schema = network.schema
    random = np.random.default_rng(seed)
    ids = random.permutation(np.arange(1, 2 * items))[:items]
    sparse = random.random(items) < SPARSE_SHARE
    ids[sparse] = random.integers(2**40, 2**63 - 1, sparse.sum())
    rows = make_rows(schema, items, random)
    histories = {
        user: random.choice(ids, 1 + user % schema.history_length)  # every length, in turn
        for user in (*range(1, users), 2**63 - 1)
    }
    url = f"lmdb://{folder / 'store'}"
    asyncio.run(load(url, schema, ids, rows, histories))
    return World(network, folder / "models", bundle, url, ids, rows, histories)


def random_published(
    schema: FeatureSchema, sizes: QINSizes, seed: int, models: Path, version: str = VERSION
) -> tuple[QIN, Bundle]:
    """A network of random weights and its bundle ``models/version``, built once per process."""
    network, built = _built_once(schema, sizes, seed, version)
    shutil.copytree(built, models / version)
    return copy.deepcopy(network), Bundle.open(models / version)


@cache
def _built_once(
    schema: FeatureSchema, sizes: QINSizes, seed: int, version: str
) -> tuple[QIN, Path]:
    folder = session_folder("built")
    network = random_network(schema, sizes, seed)
    return network, build(network, folder, version=version).path


def make_rows(schema: FeatureSchema, count: int, random: np.random.Generator) -> ItemRows:
    rows = np.zeros(count, schema.item_dtype)
    for feature in schema.item:
        match feature:
            case Categorical():
                values = random.integers(1, feature.vocabulary, count)
                cold = random.random(count) < COLD_SHARE
                strange = [0, feature.vocabulary, feature.vocabulary + 1, 2**31 - 1]
                values[cold] = random.choice(strange, cold.sum())
                rows[feature.name] = values
            case CategoricalList():
                values = random.integers(1, feature.vocabulary, (count, feature.slots))
                used = random.integers(1, feature.slots, (count, 1), endpoint=True)
                used[random.random(count) < UNTAGGED_SHARE] = 0
                rows[feature.name] = np.where(
                    np.arange(feature.slots) < feature.slots - used, 0, values
                )
            case Dense():
                rows[feature.name] = random.normal(0, 1, (count, feature.size))
    for feature in schema.context:
        rows[feature.name] = random.integers(0, feature.vocabulary + MOST_LEVEL_NOISE, count)
    return rows


async def load(
    url: str, schema: FeatureSchema, ids: Ids, rows: ItemRows, histories: dict[int, Ids]
) -> None:
    patient = StoreOptions(budget_ms=5_000)
    store = await connect(url, schema, create=True, options=patient)
    await store.put_items(ids, rows)
    await store.put_histories(histories)
    await store.close()


def on_another_store(world: World, url: str) -> World:
    """The same world, its items and histories in the store at ``url``."""
    asyncio.run(load(url, world.schema, world.ids, world.rows, world.users))
    return replace(world, store=url)
