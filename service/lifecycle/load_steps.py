"""Turns a verified bundle into a version that can answer: graphs, item table, warm-up, golden test.

The steps run in one low-priority thread. Items are derived in small slices, because each slice
holds the GIL.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np

import feature_store
from feature_store.contract import FOUND, FeatureStore, ItemBatch
from feature_store.options import StoreOptions
from model_export.bundle.bundle import Bundle
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.verify import check_golden
from service.items.item_tower import derive_into
from service.items.shared_file import TableFile, table_path
from service.items.table import Epoch, ItemTable, TableBusy
from service.lifecycle.catalog import State
from service.lifecycle.execution import Execution
from service.models.loaded_model import LoadedModel
from service.observability.logs import logger

T = TypeVar("T")
ROOM = 1.25  # table capacity per stored item, for items added later,
LEAST_ROOM = 16_384  # and at least this many more; memory is taken when a row is written
LOG_EVERY_S = 2.0
LOOK_EVERY_S = 0.05  # while another process fills the shared table
PATIENT = StoreOptions(budget_ms=5_000)  # no request waits for this
SCANNED = 512  # items read from the store at a time
SLICE = 64  # items derived and inserted at a time
WARM_ROUNDS = 3
SHAPES_KEPT = 2048
SHAPES_TRIED = 12


class Stopped(Exception):
    """The load was stopped because the service ends."""


class Progress(Protocol):
    """Receives the progress of a load, in the loading thread."""

    def enter(self, state: State, step: str, total: int = 0) -> None: ...
    def advance(self, count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a load needs besides the bundle."""

    store: str  # URL; opened anew, on the loading thread's own event loop
    most_items: int
    shapes: list[tuple[int, int]]  # (candidates in a chunk, history items) to warm up with
    stop: threading.Event
    tables: Path | None = None  # folder of tables that this machine's processes share
    execution: Execution = field(default_factory=Execution)
    # Called as soon as the table exists, empty or shared: item changes must reach it from then on.
    has_table: Callable[[LoadedModel], None] = lambda _: None


def load(bundle: Bundle, options: LoadOptions, progress: Progress) -> LoadedModel:
    """Run all steps. Blocks. BundleError, StoreError or Stopped."""
    progress.enter(State.LOADING, "opening the graphs")
    model = options.execution.open(bundle)
    version = asyncio.run(_filled(bundle, model, options, progress))
    progress.enter(State.WARMING, "warming up")
    warm(version, options.shapes)
    progress.enter(State.VERIFYING, "verifying against the golden answers")
    verify(bundle, model)
    return version


async def _filled(
    bundle: Bundle, model: FoldedModel, options: LoadOptions, progress: Progress
) -> LoadedModel:
    store = await feature_store.connect(options.store, model.schema, options=PATIENT)
    try:
        items = await store.count_items()
        capacity = min(options.most_items, int(items * ROOM) + LEAST_ROOM)
        progress.enter(State.LOADING, "filling the item table", items)
        if options.tables is None:
            version = LoadedModel(model, ItemTable(model.schema, capacity))
            options.has_table(version)
            await _fill(version, store, options, progress)
            return version
        path = table_path(options.tables, bundle, options.store)
        file = TableFile(path, model.schema, capacity)
        version = LoadedModel(model, ItemTable(model.schema, file.capacity, file.memory, file))
        options.has_table(version)
        while not file.filled:
            with file.filling() as ours:
                if ours:
                    await _fill(version, store, options, progress)
                    file.fill_is_done()
            if options.stop.is_set():
                raise Stopped
            await asyncio.sleep(LOOK_EVERY_S)
        if version.table.cursor is None:
            _when_free(version.table.joined, options)
            logger.info("item table shared", model_version=version.name, items=version.table.count)
        return version
    finally:
        await store.close()


async def _fill(
    version: LoadedModel, store: FeatureStore, options: LoadOptions, progress: Progress
) -> None:
    table = version.table
    _when_free(table.joined, options)  # drops what a process that died here had half written
    if table.cursor is None:
        table.cursor = (await store.changes(None)).cursor  # changes are followed from here
    await fill(version, store, options, progress)


async def fill(
    version: LoadedModel, store: FeatureStore, options: LoadOptions, progress: Progress
) -> None:
    """Derive every stored item into the table and report progress."""
    began = told = perf_counter()
    unreadable = seen = 0
    table = version.table
    epoch = table.epoch
    async for batch in store.scan_items(SCANNED):
        for start in range(0, len(batch.ids), SLICE):
            part = slice(start, start + SLICE)
            unreadable += _when_free(partial(_insert, version, batch, part, epoch), options)
            if options.stop.is_set():
                raise Stopped
        epoch = table.epoch
        seen += len(batch.ids)
        progress.advance(len(batch.ids))
        if perf_counter() - told > LOG_EVERY_S:
            told = perf_counter()
            logger.info("filling the item table", model_version=version.name, items=seen)
    logger.info(
        "item table filled",
        model_version=version.name,
        items=table.count,
        megabytes=round(table.count * table.bytes_per_item / 1e6, 1),
        seconds=round(perf_counter() - began, 2),
    )
    if unreadable:
        logger.warning("items with damaged records or numbers too large", items=unreadable)
    if table.refused:
        logger.warning(
            "item table full: the rest is fetched and derived by each request",
            refused=table.refused,
            capacity=table.capacity,
            remedy="raise QIN_MAX_TABLE_ITEMS",
        )


def _when_free(change: Callable[[], T], options: LoadOptions) -> T:
    """Retry a change of the table until its lock is free. Raises Stopped."""
    while True:
        try:
            return change()
        except TableBusy:
            if options.stop.is_set():
                raise Stopped from None


def _insert(version: LoadedModel, batch: ItemBatch, part: slice, epoch: Epoch) -> int:
    """Derive a part of a batch into the table. Returns how many items could not be."""
    found = np.flatnonzero(batch.status[part] == FOUND) + part.start
    insert = partial(version.table.insert, epoch=epoch)
    _, finite = derive_into(insert, version.model, batch.ids[found], batch.rows[found])
    return len(batch.ids[part]) - int(finite.sum())


class RecentShapes:
    """Samples (candidates, history items) of recent requests, to warm up a new version with."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=SHAPES_KEPT)

    def note(self, candidates: int, history: int) -> None:
        self._seen.append((candidates, history))

    def typical(self, longest_history: int, chunk: int) -> list[tuple[int, int]]:
        """Return at most a dozen, from the smallest to the largest; without traffic, a guess."""
        seen = sorted(set(self._seen.copy()))
        if not seen:
            lengths = (0, 1, longest_history)
            return [(rows, length) for length in lengths for rows in (1, 64, chunk)]
        last = len(seen) - 1
        places = sorted({round(last * i / (SHAPES_TRIED - 1)) for i in range(SHAPES_TRIED)})
        return [seen[place] for place in places]


def warm(version: LoadedModel, shapes: list[tuple[int, int]]) -> None:
    """Run the graphs at the shapes of recent requests, on rows of the table."""
    random = np.random.default_rng(0)
    items = max(1, version.table.count)
    for candidates, past in shapes * WARM_ROUNDS:
        seen = version.table.columns.gather(random.integers(0, items, past))
        history = version.model.history(seen.vector)
        asked = version.table.columns.gather(random.integers(0, items, candidates))
        version.model.rank(asked, history)
        if version.model.precision == "int8":
            version.model.exact(asked, history)  # top-k uses both


def verify(bundle: Bundle, model: FoldedModel) -> None:
    """Compare with the golden answers. BundleError beyond the export's tolerance."""
    difference = check_golden(bundle, model)
    logger.info(
        "verified",
        model_version=bundle.version,
        golden_answers=difference.cases,
        max_abs_error=difference.max_abs_error,
    )
