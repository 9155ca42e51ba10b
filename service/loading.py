"""From a bundle to a version that may answer: open, verify, fill, warm."""

from __future__ import annotations

import asyncio
from time import perf_counter

import numpy as np

from feature_store.contract import FOUND, FeatureStore, ItemBatch
from model_export.bundle import Bundle
from model_export.errors import BundleError
from model_export.manifest import TOLERANCE
from model_export.runtime import FoldedModel
from service.derive import derive
from service.engine import Engine
from service.item_table import ItemTable
from service.logs import logger
from service.readiness import Readiness
from service.versions import Version

ROOM = 1.25  # the table is this much larger than the catalogue, for items that appear later,
LEAST_ROOM = 16_384  # and by this many at least; memory is taken only when written
LOG_EVERY_S = 2.0
WARM_ROUNDS = 3
WARM_TIMEOUT_S = 60.0


async def load_version(
    bundle: Bundle, store: FeatureStore, engine: Engine, most_items: int, readiness: Readiness
) -> Version:
    """A version that may answer. BundleError when its own golden answers disagree."""
    readiness.enter("opening the graphs")
    model = await asyncio.to_thread(FoldedModel, bundle)

    readiness.enter("verifying against the golden answers")
    await asyncio.to_thread(verify, bundle, model)

    items = await store.count_items()
    capacity = min(most_items, int(items * ROOM) + LEAST_ROOM)
    version = Version(model, ItemTable(model.schema, capacity))
    readiness.enter("filling the item table", items)
    await fill(version, store, readiness)

    readiness.enter("warming up")
    await warm(version, engine)
    return version


def verify(bundle: Bundle, model: FoldedModel) -> None:
    """Ask the graphs every golden question. BundleError beyond the export's own tolerance."""
    difference = bundle.golden().compare(model)
    if not difference.max_abs_error <= TOLERANCE:
        raise BundleError(
            f"{bundle.path}: not served: on this machine its answers differ from its own golden "
            f"ones by {difference.max_abs_error:.3g} (at most {TOLERANCE:g} is allowed); worst "
            f"case: {difference.worst_case}; rebuild it with `python -m model_export build`"
        )
    logger.info(
        "verified",
        model_version=bundle.version,
        golden_answers=difference.cases,
        max_abs_error=difference.max_abs_error,
    )


async def fill(version: Version, store: FeatureStore, readiness: Readiness) -> None:
    """Derive every stored item, off the event loop, saying how far it is."""
    began = told = perf_counter()
    unreadable = 0
    async for batch in store.scan_items():
        unreadable += await asyncio.to_thread(_insert, version, batch)
        readiness.done += len(batch.ids)
        if perf_counter() - told > LOG_EVERY_S:
            told = perf_counter()
            logger.info("filling the item table", items=readiness.done, of=readiness.total)
    table = version.table
    logger.info(
        "item table filled",
        items=table.count,
        megabytes=round(table.count * table.bytes_per_item / 1e6, 1),
        seconds=round(perf_counter() - began, 2),
    )
    if unreadable:
        logger.warning("items with damaged or non-finite records", items=unreadable)
    if table.refused:
        logger.warning(
            "item table full: the rest is fetched and derived by each request",
            refused=table.refused,
            capacity=table.capacity,
            remedy="raise QIN_MAX_TABLE_ITEMS",
        )


def _insert(version: Version, batch: ItemBatch) -> int:
    """Add a batch; how many of it are unreadable."""
    found = np.flatnonzero(batch.status == FOUND)
    items, finite = derive(version.model, batch.rows[found])
    chosen = np.flatnonzero(finite)
    version.table.insert(batch.ids[found[chosen]], items.gather(chosen))
    return len(batch.ids) - len(chosen)


async def warm(version: Version, engine: Engine) -> None:
    """Run every graph in every thread, at the shapes requests will have."""
    schema, model = version.schema, version.model
    for length in (0, 1, schema.history_length) * WARM_ROUNDS:
        history = model.history(np.zeros((length, schema.item_vector_width), np.float32))

        def rank(start: int, end: int, history=history) -> None:  # type: ignore[no-untyped-def]
            positions = np.zeros(end - start, np.int64)
            items = version.table.columns.gather(positions)
            model.rank(items, history)

        for rows in (1, 64, engine.chunk * engine.threads):
            await engine.run(rank, rows, perf_counter() + WARM_TIMEOUT_S)
