"""Turns a verified bundle into a version that can answer: graphs, table, warm-up, golden answers.

Runs in one low-priority thread. Items are derived in small slices: each holds the GIL.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

import feature_store
from feature_store.contract import FOUND, FeatureStore, ItemBatch
from feature_store.options import StoreOptions
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import NotYet
from model_export.bundle.modes import Choice
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.size_buckets import LEAST_LIST, buckets
from model_export.bundle.verify import check_golden
from service.items.item_tower import derive_into
from service.items.shared_file import TableFile, table_path
from service.items.table import Epoch, ItemTable, TableBusy
from service.lifecycle.catalog import State
from service.lifecycle.execution import Execution
from service.models.loaded_model import LoadedModel
from service.observability.logs import logger
from service.settings import Settings

if TYPE_CHECKING:
    from text.runtime.encoder import TextEncoder  # takes an extra

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


class LacksContent(NotYet):
    """Too few items have the content that a version wants: it may be loaded when more have."""


class Stopped(Exception):
    """The load was stopped because the service ends."""


class Progress(Protocol):
    """Receives the progress of a load, in the loading thread."""

    def enter(self, state: State, step: str, total: int = 0) -> None: ...
    def advance(self, count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class LoadSteps:
    """One load. ``run`` blocks; the store is opened on an event loop of the loading thread."""

    bundle: Bundle
    settings: Settings
    shapes: list[tuple[int, int]]  # (candidates in a chunk, history items) to warm up with
    progress: Progress
    stop: threading.Event
    # Called as soon as the table exists, empty or shared: item changes must reach it from then on.
    has_table: Callable[[LoadedModel], None]
    encoder: TextEncoder | None = None  # that it comes with
    choice: Choice | None = None  # of its mode, with precision=auto

    def run(self) -> LoadedModel:
        """Raises BundleError, StoreError or Stopped."""
        self.progress.enter(State.LOADING, "opening the graphs")
        model = Execution.of(self.settings).open(self.bundle, self.choice)
        version = asyncio.run(self._with_table(model))
        self._check_content(version)
        self.progress.enter(State.WARMING, "warming up")
        self._warm(version)
        self.progress.enter(State.VERIFYING, "verifying against the golden answers")
        difference = check_golden(self.bundle, model)  # BundleError beyond the export's tolerance
        logger.info(
            "verified",
            model_version=version.name,
            golden_answers=difference.cases,
            max_abs_error=difference.max_abs_error,
        )
        return version

    async def _with_table(self, model: FoldedModel) -> LoadedModel:
        settings, schema = self.settings, model.schema
        store = await feature_store.connect(settings.store, schema, options=PATIENT)
        try:
            items = await store.count_items()
            capacity = min(settings.max_table_items, int(items * ROOM) + LEAST_ROOM)
            self.progress.enter(State.LOADING, "filling the item table", items)
            if settings.table_folder is None:
                version = LoadedModel(model, ItemTable(schema, capacity), self.encoder)
                self.has_table(version)
                await self._fill(version, store)
                return version
            path = table_path(settings.table_folder, self.bundle, settings.store)
            file = TableFile(path, schema, capacity)
            version = LoadedModel(
                model, ItemTable(schema, file.capacity, file.memory, file), self.encoder
            )
            self.has_table(version)
            while not file.filled:
                with file.filling() as ours:
                    if ours:
                        await self._fill(version, store)
                        file.fill_is_done()
                self._check_stop()
                await asyncio.sleep(LOOK_EVERY_S)
            table = version.table
            if table.cursor is None:
                self._when_free(table.joined)
                logger.info("item table shared", model_version=version.name, items=table.count)
            return version
        finally:
            await store.close()

    async def _fill(self, version: LoadedModel, store: FeatureStore) -> None:
        """Derive every stored item into the table."""
        table = version.table
        self._when_free(table.joined)  # drops what a process that died here had half written
        if table.cursor is None:
            table.cursor = (await store.changes(None)).cursor  # changes are followed from here
        began = logged = perf_counter()
        unreadable = seen = 0
        epoch = table.epoch
        async for batch in store.scan_items(SCANNED):
            for start in range(0, len(batch.ids), SLICE):
                part = slice(start, start + SLICE)
                unreadable += self._when_free(partial(_insert, version, batch, part, epoch))
                self._check_stop()
            epoch = table.epoch
            seen += len(batch.ids)
            self.progress.advance(len(batch.ids))
            if perf_counter() - logged > LOG_EVERY_S:
                logged = perf_counter()
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

    def _check_content(self, version: LoadedModel) -> None:
        """LacksContent if too few items have the content that the version wants."""
        wanted, needed = version.model.wanted, self.settings.content_share
        if wanted is None:
            return
        items, having = version.table.count, version.table.count - version.table.lacking
        feature, digest = wanted.origin.feature, wanted.origin.digest
        if having < needed * items:
            raise LacksContent(
                f"{self.bundle.path}: was trained with contents {digest} of {feature}, which "
                f"{having:,} of {items:,} items have ({having / items:.1%}), and {needed:.1%} are "
                "needed (QIN_CONTENT_SHARE): run `python -m text embed ENCODER ITEMS --out TABLE "
                "--store STORE` with that encoder, then load it again"
            )
        logger.info(
            "contents", model_version=version.name, digest=digest, items=items, having=having
        )

    def _when_free(self, change: Callable[[], T]) -> T:
        """Retry a change of the table until its lock is free."""
        while True:
            try:
                return change()
            except TableBusy:
                self._check_stop()

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _warm(self, version: LoadedModel) -> None:
        """Run the graphs at the shapes of recent requests, on rows of the table; where shapes are
        compiled, at all of them, in each thread's session."""
        random, model, columns = np.random.default_rng(0), version.model, version.table.columns
        items = max(1, version.table.count)
        record = np.zeros(1, model.schema.user_dtype)
        shapes, rounds = self.shapes, WARM_ROUNDS
        if model.placement.provider == "openvino":
            lengths = buckets(model.schema.history_length)
            most = self.settings.chunk_candidates
            sizes = [rows for rows in buckets(most)[1:] if rows >= min(most, LEAST_LIST)]
            shapes = [(rows, length) for length in lengths for rows in sizes]
            rounds = self.settings.engine_threads
        for candidates, past in (shape for shape in shapes for _ in range(rounds)):
            history = model.history(columns.gather(random.integers(0, items, past)).vector)
            asked = columns.gather(random.integers(0, items, candidates))
            user = model.user(record)
            model.rank(asked, history, user)
            if model.reduced != "fp32":  # top-k uses both
                model.logits(asked, history, model.reduced, user)
                model.exact(asked, history, user)


def _insert(version: LoadedModel, batch: ItemBatch, part: slice, epoch: Epoch) -> int:
    """Derive a part of a batch into the table. Returns how many items could not be."""
    found = np.flatnonzero(batch.status[part] == FOUND) + part.start
    insert = partial(version.table.insert, epoch=epoch)
    _, finite = derive_into(insert, version.model, batch.take(found))
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
