"""Makes labelled rows for a random network, which has no training data."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from model_export.bundle.vectors import request_dtype
from model_export.quality.held_out import HeldOut
from model_export.quality.random_records import records
from training.data.catalogue import Catalogue, feature_tensors
from training.data.rows import Rows
from training.data.users import RowUsers
from training.qin import QIN, Standardised

ITEMS, USERS, CANDIDATES = 2_000, 500, 4
NAME = "random rows, labelled by the network's own probabilities"


def random_held_out(network: QIN, seed: int = 0) -> HeldOut:
    """Make users with histories of every length and four candidates each."""
    random, schema = np.random.default_rng(seed), network.schema
    items = Catalogue(schema, np.arange(ITEMS + 1), _items(schema, random))
    history = random.integers(1, ITEMS + 1, (USERS, schema.history_length), np.int32)
    length = random.integers(0, schema.history_length + 1, (USERS, 1))
    history[np.arange(schema.history_length) < schema.history_length - length] = 0
    count = USERS * CANDIDATES
    rows = Rows(
        items,
        user=np.repeat(np.arange(USERS), CANDIDATES),
        history=np.repeat(history, CANDIDATES, axis=0),
        target=random.integers(1, ITEMS + 1, count, np.int32),
        context=_levels(schema, count, random),
        label=np.zeros(count, np.float32),
        request=_requests(network, count) if schema.request else None,
        users=_users(schema, count) if schema.user else None,
    )
    probability = np.concatenate([_probability(network, rows, part) for part in _parts(count)])
    rows.label[:] = random.random(count) < probability
    return HeldOut.of(rows, NAME)


def _users(schema: FeatureSchema, count: int) -> RowUsers:
    """A user for each list, every fifth unknown."""
    random = np.random.default_rng(1)  # draws nothing from that of the items
    pool = records(schema.user, schema.user_dtype, USERS + 1, 1.0, random)
    pool[0] = np.zeros((), schema.user_dtype)
    number = np.arange(1, USERS + 1, dtype=np.int32)
    number[::5] = 0
    return RowUsers(
        np.arange(USERS + 1),
        np.repeat(number, count // USERS),
        feature_tensors(schema.user, pool),
    )


def _requests(network: QIN, count: int) -> NDArray[np.void]:
    """Features of each list's request, every fifth of a feature missing."""
    random, schema = np.random.default_rng(2), network.schema
    found = np.zeros(USERS, request_dtype(schema))
    for feature in schema.request:
        number = network.request_vector.embedding[feature.name]
        if isinstance(number, Standardised):
            found[feature.name] = random.normal(float(number.mean), float(number.deviation), USERS)
        elif isinstance(feature, Categorical):
            found[feature.name] = random.integers(1, feature.vocabulary, USERS)
        missing = np.nan if isinstance(number, Standardised) else 0
        found[feature.name][random.random(USERS) < 0.2] = missing
    return np.repeat(found, count // USERS)


def _items(schema: FeatureSchema, random: np.random.Generator) -> ItemRows:
    rows = np.zeros(ITEMS + 1, schema.item_dtype)
    for feature in schema.stored_item:
        match feature:
            case Categorical():
                rows[feature.name] = random.integers(1, feature.vocabulary, ITEMS + 1)
            case CategoricalList():
                shape = (ITEMS + 1, feature.slots)
                used = random.integers(1, feature.slots, (ITEMS + 1, 1), endpoint=True)
                tags = random.integers(1, feature.vocabulary, shape)
                rows[feature.name] = np.where(
                    np.arange(feature.slots) < feature.slots - used, 0, tags
                )
            case Dense():
                rows[feature.name] = random.normal(size=(ITEMS + 1, feature.size))
    rows[0] = np.zeros((), schema.item_dtype)
    return rows


def _levels(schema: FeatureSchema, count: int, random: np.random.Generator) -> NDArray[np.int32]:
    columns = [random.integers(1, f.vocabulary, count) for f in schema.context]
    return np.array(columns, np.int32).reshape(len(columns), count).T


def _parts(count: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(count), -(-count // 512))


def _probability(network: QIN, rows: Rows, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    with torch.inference_mode():
        answer: NDArray[np.float32] = network(rows.batch(chosen)).sigmoid().numpy()
    return answer
