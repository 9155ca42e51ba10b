"""Fills an item table from the store: every item is read, derived and inserted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np

from feature_store.contract import FOUND, FeatureStore, ItemBatch
from feature_store.options import StoreOptions
from model_export.bundle.runtime import FoldedModel
from service.items.item_tower import derive_into
from service.items.table import Epoch, ItemTable, TableBusy

T = TypeVar("T")
PATIENT = StoreOptions(budget_ms=5_000)  # no request waits for this
SCANNED = 512  # items read from the store at a time


@dataclass(frozen=True, slots=True)
class Filled:
    """What a table was filled with."""

    items: int  # in the table
    unreadable: int  # damaged records, or numbers too large
    refused: int  # found no room
    seconds: float


async def fill(
    table: ItemTable,
    model: FoldedModel,
    store: FeatureStore,
    advance: Callable[[int], None],
    derived_at_once: int = SCANNED,
) -> Filled:
    """Derive every stored item into the table, and set its cursor to where the change log is to be
    followed from. StoreError.

    ``advance`` is called with the items that were read since the last call, and, with 0, while the
    table's lock is not free; what it raises ends the filling. ``derived_at_once``: items derived
    and inserted at a time, during which the GIL is mostly held.
    """

    def when_free(change: Callable[[], T]) -> T:
        while True:
            try:
                return change()
            except TableBusy:
                advance(0)

    began, unreadable = perf_counter(), 0
    when_free(table.joined)  # drops what a process that died here had half written
    if table.cursor is None:
        table.cursor = (await store.changes(None)).cursor
    epoch = table.epoch
    async for batch in store.scan_items(SCANNED):
        for start in range(0, len(batch.ids), derived_at_once):
            part = slice(start, start + derived_at_once)
            unreadable += when_free(partial(_insert, table, model, batch, part, epoch))
            advance(len(batch.ids[part]))
        epoch = table.epoch
    return Filled(table.count, unreadable, table.refused, perf_counter() - began)


def _insert(
    table: ItemTable, model: FoldedModel, batch: ItemBatch, part: slice, epoch: Epoch
) -> int:
    """Derive a part of a batch into the table. Returns how many items could not be."""
    found = np.flatnonzero(batch.status[part] == FOUND) + part.start
    _, finite = derive_into(partial(table.insert, epoch=epoch), model, batch.take(found))
    return len(batch.ids[part]) - int(finite.sum())
