"""Turns a verified bundle into a version that can answer: graphs, table, warm-up, golden answers.

Runs in one low-priority thread; the table is filled by a child process (``table_process``).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

import feature_store
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError
from feature_store.options import StoreOptions
from feature_store.wording import worded
from model_export.bundle.bundle import REBUILD, Bundle
from model_export.bundle.errors import BundleError, NotYet, said
from model_export.bundle.modes import Choice
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.size_buckets import LEAST_LIST, buckets
from model_export.bundle.verify import check_golden
from service.items.own_file import OwnFile
from service.items.shared_file import TableFile, table_path
from service.items.table import ItemTable, TableBusy
from service.items.table_fill import PATIENT, Filled, fill
from service.lifecycle.catalog import State
from service.lifecycle.execution import Execution
from service.lifecycle.table_process import TableNotFilled, TableProcess
from service.models.loaded_model import LoadedModel
from service.observability.logs import logger
from service.settings import Settings

if TYPE_CHECKING:
    from text.runtime.encoder import TextEncoder  # takes an extra

T = TypeVar("T")
ROOM = 1.25  # table capacity per stored item, for items added later,
LEAST_ROOM = 16_384  # and at least this many more; memory is taken when a row is written
LOOK_EVERY_S = 0.05  # while another process fills the shared table
FEW = 4096  # items that are derived sooner than a process has started
SLICE = 64  # of few items, derived and inserted at a time: each holds the GIL
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


def _call(work: Callable[[], T]) -> T:
    return work()


@dataclass(frozen=True, slots=True)
class LoadSteps:
    """One load. ``run`` blocks; the store is opened on an event loop of the loading thread."""

    bundle: Bundle
    settings: Settings
    shapes: list[tuple[int, int]]  # (candidates in a chunk, history items) to warm up with
    progress: Progress
    stop: threading.Event
    # Called when the table is filled: item changes must reach it from then on. Earlier ones are in
    # the store's change log after the table's cursor.
    has_table: Callable[[LoadedModel], None]
    encoder: TextEncoder | None = None  # that it comes with
    choice: Choice | None = None  # of its mode, with precision=auto
    niceness: int = 0  # of the process that fills the table
    options: StoreOptions = PATIENT  # to open the store with
    at_normal_priority: Callable[[Callable[[], TableProcess]], TableProcess] = _call

    def run(self) -> LoadedModel:
        """Raises BundleError, StoreError or Stopped."""
        self.progress.enter(State.LOADING, "opening the graphs")
        model = Execution.of(self.settings).open(self.bundle, self.choice)
        table, file = asyncio.run(self._table(model))
        version = LoadedModel(model, table, self.encoder, file)
        self.has_table(version)
        self._check_content(version)
        self.progress.enter(State.WARMING, "warming up")
        with self._running("on the shapes of requests"):
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

    async def _table(self, model: FoldedModel) -> tuple[ItemTable, TableFile | OwnFile]:
        """A table of every stored item, and its file, filled for this process or for another."""
        settings, schema = self.settings, model.schema
        store = await feature_store.connect(settings.store, schema, options=self.options)
        try:
            items = await store.count_items()
            file = self._file(min(settings.max_table_items, int(items * ROOM) + LEAST_ROOM))
            table = ItemTable(schema, file.capacity, file.memory, file.others)
            self.progress.enter(State.LOADING, "filling the item table", items)
            filled_here = False
            while not file.filled:
                with file.filling() as ours:
                    if ours:
                        self._log(await self._fill(table, model, store, file, items), table)
                        file.fill_is_done()
                        filled_here = True
                if not ours:
                    self._advance(0)
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await store.close()
        while table.cursor is None:
            try:
                table.joined()
                break
            except TableBusy:
                self._advance(0)
        if not filled_here:
            logger.info("item table shared", model_version=self.bundle.version, items=table.count)
        return table, file

    def _file(self, capacity: int) -> TableFile | OwnFile:
        """Begin a table, or join that of other processes. TableNotFilled if there is no room."""
        settings, schema = self.settings, self.bundle.schema
        try:
            if settings.table_folder is None:
                return OwnFile(schema, capacity)
            path = table_path(settings.table_folder, self.bundle, settings.store)
            return TableFile(path, schema, capacity)
        except OSError as error:
            raise TableNotFilled(worded(error)) from error

    async def _fill(
        self,
        table: ItemTable,
        model: FoldedModel,
        store: FeatureStore,
        file: TableFile | OwnFile,
        items: int,
    ) -> Filled:
        """In a child process, unless that would take longer to start than to fill the table."""
        if items <= FEW:
            with self._running("on the store's items"):
                return await fill(table, model, store, self._advance, SLICE)
        start = partial(TableProcess.start, self.bundle, file, self.settings, self.niceness)
        filled = self.at_normal_priority(start).wait(self._advance)
        table.refused += filled.refused
        return filled

    @contextmanager
    def _running(self, what: str) -> Iterator[None]:
        """Turn the graphs' own errors into a BundleError; golden answers may not show them all."""
        try:
            yield
        except (BundleError, StoreError, Stopped, MemoryError, OSError):
            raise
        except Exception as error:  # onnxruntime's errors have no other common base
            raise BundleError(
                f"{self.bundle.path}: its graphs fail {what}: {said(error)}; {REBUILD}"
            ) from error

    def _advance(self, count: int) -> None:
        if self.stop.is_set():
            raise Stopped
        if count:
            self.progress.advance(count)

    def _log(self, filled: Filled, table: ItemTable) -> None:
        logger.info(
            "item table filled",
            model_version=self.bundle.version,
            items=filled.items,
            megabytes=round(filled.items * table.bytes_per_item / 1e6, 1),
            seconds=round(filled.seconds, 2),
        )
        if filled.unreadable:
            what = "items with damaged records or numbers too large"
            logger.warning(what, items=filled.unreadable)
        if filled.refused:
            logger.warning(
                "item table full: the rest is fetched and derived by each request",
                refused=filled.refused,
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

    def _warm(self, version: LoadedModel) -> None:
        """Run the graphs at the shapes of recent requests, on rows of the table; where shapes are
        compiled, at all of them, in each thread's session."""
        model, items = version.model, max(1, version.table.count)
        _ = model.extremes  # or the first request that fetches an item waits for it
        if not model.is_batch_invariant and model.placement.provider == "cpu":
            logger.warning(
                "on this processor float32 scores depend on how a list is cut",
                model_version=version.name,
                effect="top_k is scored in float32 alone; long lists delay short ones longer",
            )
        record = np.zeros(1, model.schema.user_dtype)
        shapes, rounds = self.shapes, WARM_ROUNDS
        if model.placement.provider == "openvino":
            lengths = buckets(model.schema.history_length)
            most = self.settings.chunk_candidates
            sizes = [rows for rows in buckets(most)[1:] if rows >= min(most, LEAST_LIST)]
            shapes = [(rows, length) for length in lengths for rows in sizes]
            rounds = self.settings.engine_threads
        # Copied once: a copy holds the GIL, also while the system maps the table's pages.
        most = max((max(shape) for shape in shapes), default=0)
        rows = version.table.columns.gather(np.arange(most) % items)
        for candidates, past in (shape for shape in shapes for _ in range(rounds)):
            self._advance(0)
            history = model.history(rows.vector[:past])
            asked = rows.first(candidates)
            user = model.user(record)
            model.rank(asked, history, user)
            if model.reduced != "fp32":  # top-k uses both
                model.logits(asked, history, model.reduced, user)
                model.exact(asked, history, user)


class RecentShapes:
    """Samples (candidates, history items) of recent requests, to warm up a new version with."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=SHAPES_KEPT)

    def note(self, candidates: int, history: int) -> None:
        self._seen.append((candidates, history))

    def typical(self, longest_history: int, chunk: int) -> list[tuple[int, int]]:
        """Return at most a dozen, from the smallest to the largest, as they are scored: a list in
        chunks, a history within the version's length. Without traffic, a guess."""
        seen = sorted({(min(c, chunk), min(h, longest_history)) for c, h in self._seen.copy()})
        if not seen:
            lengths = (0, 1, longest_history)
            return [(rows, length) for length in lengths for rows in (1, 64, chunk)]
        last = len(seen) - 1
        places = sorted({round(last * i / (SHAPES_TRIED - 1)) for i in range(SHAPES_TRIED)})
        return [seen[place] for place in places]
