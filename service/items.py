"""A request's items: found in the version's table, or fetched, derived and kept there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import CORRUPT, FOUND, Ids
from service.engine import Engine
from service.hash_index import ABSENT
from service.item_table import DerivedItems, Slots
from service.store import StoreReader
from service.timings import Timings
from service.versions import Version, derive

Status = NDArray[np.uint8]  # FOUND | MISSING | CORRUPT


@dataclass(frozen=True, slots=True)
class FoundItems:
    """N items of one request, by position."""

    status: Status  # (N,)
    slot: Slots  # (N,) into ``table``; ABSENT when fetched, or not found
    table: DerivedItems
    place: Slots | None = None  # (N,) into ``fetched``
    fetched: DerivedItems | None = None

    def gather(self, positions: Slots) -> DerivedItems:
        """Rows of the FOUND items at these positions, in that order."""
        slots = self.slot[positions]
        items = self.table.gather(np.maximum(slots, 0))
        if self.fetched is not None and self.place is not None:
            extra = np.flatnonzero(slots == ABSENT)
            source = self.fetched.gather(self.place[positions[extra]])
            for column, values in zip(items.columns(), source.columns(), strict=True):
                column[extra] = values
        return items

    def cold(self, start: int) -> NDArray[np.bool_]:
        """Of the items from ``start`` on, those found that the model has no identity for."""
        slots = self.slot[start:]
        cold = np.zeros(len(slots), np.bool_)
        kept = slots != ABSENT
        cold[kept] = self.table.cold[slots[kept]]
        if self.fetched is not None and self.place is not None:
            places = self.place[start:]
            fetched = places != ABSENT
            cold[fetched] = self.fetched.cold[places[fetched]]
        cold &= self.status[start:] == FOUND
        return cold


async def find_items(
    ids: Ids, version: Version, store: StoreReader, engine: Engine, deadline: float, t: Timings
) -> FoundItems:
    """ids (N,), any of them more than once. At most one store round trip, none when warm."""
    table = version.table
    slot = table.find(ids)
    missed = slot == ABSENT
    store.metrics.table_hits.inc(len(ids) - missed.sum())
    t.lap("table")
    if not missed.any():
        return FoundItems(np.full(len(ids), FOUND, np.uint8), slot, table.columns)

    store.metrics.table_misses.inc(missed.sum())
    wanted, place = np.unique(ids[missed], return_inverse=True)
    batch = await store.items(wanted)
    t.lap("store")
    status = batch.status.copy()  # (W,)
    readable = np.flatnonzero(status == FOUND)
    parts: dict[int, DerivedItems] = {}

    def derive_chunk(start: int, end: int) -> None:
        chosen = readable[start:end]
        items, finite = derive(version.model, batch.rows[chosen])
        status[chosen[~finite]] = CORRUPT
        table.insert(wanted[chosen[finite]], items.gather(np.flatnonzero(finite)))
        parts[start] = items

    if len(readable):
        await engine.run(derive_chunk, len(readable), deadline)
    t.lap("items")
    return _joined(slot, missed, place, status, readable, parts, table.columns)


def _joined(
    slot: Slots,
    missed: NDArray[np.bool_],
    place: Slots,
    status: Status,
    readable: Slots,
    parts: dict[int, DerivedItems],
    table: DerivedItems,
) -> FoundItems:
    """Fetched items are used from the batch itself: the table may have had no room for them."""
    everywhere = np.full(len(slot), FOUND, np.uint8)
    everywhere[missed] = status[place]
    if not parts:
        return FoundItems(everywhere, slot, table)
    row_of = np.full(len(status), ABSENT)  # (W,) place among the readable
    row_of[readable] = np.arange(len(readable))
    places = np.full(len(slot), ABSENT)
    places[missed] = row_of[place]
    fetched = DerivedItems.joined([parts[start] for start in sorted(parts)])
    return FoundItems(everywhere, slot, table, places, fetched)
