"""Inputs for batch runs: users' candidate lists, as lists and as rows, and what they score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contract import Ids
from tests.service.world import World

UNKNOWN = 2**40 + 1  # no item of the world


@dataclass(frozen=True, slots=True)
class Lists:
    """A user's candidates each."""

    users: list[int]
    items: list[Ids]

    def table(self) -> pa.Table:
        label = [f"list {n}" for n in range(len(self.users))]
        return pa.table({"user_id": self.users, "item_ids": list(self.items), "label": label})

    def rows(self, order: Ids | None = None) -> pa.Table:
        """A row per candidate, in ``order`` (N,) of the lists' own."""
        users = np.repeat(self.users, [len(i) for i in self.items])
        table = pa.table({"user_id": users, "item_id": np.concatenate(self.items)})
        table = table.append_column("at", pa.array(np.arange(len(users))))
        return table if order is None else table.take(pa.array(order))


def make_lists(world: World, count: int = 1000, longest: int = 300, seed: int = 3) -> Lists:
    """One list for each of ``count`` users, of whom some are unknown; some items are."""
    random = np.random.default_rng(seed)
    users = [*list(world.users)[: count - 5], *range(10**6, 10**6 + 5)][:count]
    items = []
    for n in range(len(users)):
        length = int(random.integers(1, longest)) if n % 10 else (1, 64, 128, 129, 256)[n % 5]
        chosen = random.choice(world.ids, length)
        chosen[random.random(length) < 0.02] = UNKNOWN
        items.append(chosen)
    return Lists(users, items)


def write(table: pa.Table, path: Path, row_group: int = 2**20) -> Path:
    pq.write_table(table, path, row_group_size=row_group)
    return path
