"""Looks up a request's items in the version's table, and fetches what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from feature_store.contract import CORRUPT, Ids
from model_export.bundle.vectors import Mask, Positions
from service.admission.admission import Permit
from service.admission.loop_charge import Charge
from service.context import StageTimer
from service.engine.engine import Engine
from service.errors import StoreFailure
from service.items.fetcher import Fetched, ItemFetcher, SomeStatus, Status, each_status
from service.items.hash_index import ABSENT
from service.items.store_client import StoreReader
from service.items.table import DerivedItems, Generations, ItemTable, Slots


@dataclass(frozen=True, slots=True)
class ItemLookup:
    """N items of one request, by position."""

    ids: Ids  # (N,) any of them more than once
    table: ItemTable
    slot: Slots  # (N,) into ``table``; ABSENT when fetched, or not found
    generation: Generations  # (N,) of the slots
    missed: Positions  # (M,) not in the table: see ``fetch_missed``
    cold: Mask  # (N,) found, but the model has no identity for it
    # (N,) FOUND | MISSING | CORRUPT; what could not be asked for counts as CORRUPT.
    status: SomeStatus = None
    place: Slots | None = None  # (N,) into ``fetched``
    fetched: DerivedItems | None = None
    unreached: bool = False  # the store did not answer for some of them
    lacks: Mask | None = None  # (N,) found, without the content that the model wants, if it does

    def __len__(self) -> int:
        return len(self.slot)

    def without(self, positions: Positions) -> ItemLookup:
        """A copy in which the items at these positions are unreadable."""
        status = each_status(self.status, len(self)).copy()
        status[positions] = CORRUPT
        return replace(self, status=status)

    def giving(self, positions: Positions, items: DerivedItems) -> ItemLookup:
        """Return these items (I,) at these distinct positions, found; before ``fetch_missed``."""
        place = np.full(len(self), ABSENT)
        place[positions] = np.arange(len(items))
        self.slot[positions], self.cold[positions] = ABSENT, items.cold
        if self.lacks is not None:
            self.lacks[positions] = items.lacks
        missed = self.missed[~np.isin(self.missed, positions)]
        return replace(self, missed=missed, place=place, fetched=items)

    def gather(self, positions: Slots) -> DerivedItems:
        """Rows of the FOUND items at these positions. StaleSlots when the table has evicted one."""
        slots = self.slot[positions]
        if self.fetched is None or self.place is None:
            return self.table.take(slots, self.generation[positions])
        kept, extra = np.flatnonzero(slots != ABSENT), np.flatnonzero(slots == ABSENT)
        items = self.table.columns.gather(np.maximum(slots, 0))
        self.table.check(slots[kept], self.generation[positions[kept]])
        source = self.fetched.gather(self.place[positions[extra]])
        for column, values in zip(items.columns(), source.columns(), strict=True):
            column[extra] = values
        return items


def look_up(
    ids: Ids, table: ItemTable, *, past_table: bool = False, of_content: bool = False
) -> ItemLookup:
    """Find ids (N,) in the table. ``of_content``: the model wants a certain content.

    ``past_table`` misses all of them, for a request whose slots are evicted again and again.
    """
    slot, generation, missed = table.look_up(ids)
    if past_table:
        slot[:], missed = ABSENT, np.arange(len(ids))
    cold, lacks = table.columns.cold.take(slot), None
    if of_content:
        lacks = table.columns.lacks.take(slot)
        lacks[missed] = False
    return ItemLookup(ids, table, slot, generation, missed, cold, lacks=lacks)


async def fetch_missed(
    found: ItemLookup,
    fetcher: ItemFetcher,
    store: StoreReader,
    engine: Engine,
    deadline: float,
    timer: StageTimer,
    permit: Permit | None = None,
    charge: Charge | None = None,
) -> ItemLookup:
    """Fetch what ``found`` has missed; without all of it where the store fails."""
    ids, missed, cold = found.ids, found.missed, found.cold
    cold[missed] = False
    wanted, position = np.unique(ids[missed], return_inverse=True)
    status, place = np.full(len(wanted), CORRUPT, np.uint8), np.full(len(wanted), ABSENT)
    parts, unreached = list[Fetched](), False
    try:
        async for part in fetcher.fetch(wanted, store, engine, deadline, permit, charge):
            parts.append(part)
    except StoreFailure:
        if not store.may_do_without:
            raise
        unreached = True
    if parts:
        timer.lap("store", max(timer.lapped, max(part.answered for part in parts)))
    fetched = _merged(parts, wanted, status, place)
    timer.lap("items")

    everywhere = each_status(found.status, len(found))
    everywhere[missed] = status[position]
    places = np.full(len(ids), ABSENT) if found.place is None else found.place.copy()
    if found.fetched is not None:  # items that the request gave
        place[place != ABSENT] += len(found.fetched)
        fetched = DerivedItems.joined([found.fetched, *([] if fetched is None else [fetched])])
    places[missed] = place[position]
    if fetched is not None:
        cold |= (places != ABSENT) & fetched.cold[places]
        if found.lacks is not None:
            found.lacks[:] |= (places != ABSENT) & fetched.lacks[places]
    return replace(found, status=everywhere, place=places, fetched=fetched, unreached=unreached)


def _merged(
    parts: Sequence[Fetched], wanted: Ids, status: Status, place: Slots
) -> DerivedItems | None:
    """Fill status and place (W,) of the wanted items; the items they are places in.

    They are used from here: the table may have had no room for them.
    """
    found, start = list[DerivedItems](), 0
    for part in parts:
        # A part that others began may hold items that this request did not ask for.
        at = np.searchsorted(part.ids, wanted).clip(max=len(part.ids) - 1)
        mine = part.ids[at] == wanted
        status[mine] = part.status[at[mine]]
        if part.items is not None:
            places = part.place[at[mine]]
            place[mine] = np.where(places == ABSENT, ABSENT, places + start)
            start += len(part.items)
            found.append(part.items)
    return DerivedItems.joined(found) if found else None
