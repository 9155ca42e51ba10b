"""Writes a table's contents to a feature store: records that differ alone, with its change feed.

An item of the store gets the content of its digest, beside one of an earlier digest; others are
inserted where the table has all of the schema's columns. Nothing is kept of the progress: what a
killed run has written does not differ any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.contents import GIVEN, Contents, Mask, Origin, Wanted
from feature_store.contract import CORRUPT, FOUND, MISSING, FeatureStore, ItemRows
from feature_store.descriptions import Description
from feature_store.errors import StoreCorrupt
from feature_store.parquet.columns import DataFileError, RejectedRow
from feature_store.parquet.items import ItemParquet, ItemParquetBatch
from feature_store.parquet.table import ParquetTable
from feature_store.schema import Dense, FeatureSchema

BATCH = 2048
AT_ONCE = 32  # patches under way
SHOWN = 3


@dataclass(slots=True)
class StoreReport:
    """Counts of items."""

    written: int = 0  # content that differed
    inserted: int = 0
    same: int = 0
    without: int = 0  # no content: the store's own stays
    not_in_store: int = 0  # and the table lacks columns of the schema
    damaged: int = 0  # records that cannot be read
    rejected: int = 0
    examples: tuple[str, ...] = ()  # of rejected rows


async def put_contents(
    store: FeatureStore,
    path: Path,
    origin: Origin,
    size: int,
    *,
    id_column: str | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> StoreReport:
    """Write the contents of a table of ``text embed``, with the digest of their ``origin``.

    Raises StoreError and DataFileError.
    """
    feature = origin.feature
    stored = {each.name: each for each in store.schema.item}.get(feature)
    if not isinstance(stored, Dense) or stored.size != size:
        raise DataFileError(f"the store's schema has no dense item feature {feature} of {size}")
    own = store.schema.stored_item
    lacking = {each.name for each in own} - set(ParquetTable(path).columns)
    is_whole = lacking <= {each.name for each in store.schema.context}
    schema = store.schema if is_whole else _of_one(store.schema, stored)
    source = ItemParquet([path], schema, id_column=id_column, text_ids=store.text_ids)
    report = StoreReport()
    rejected: list[RejectedRow] = []
    for batch in source.batches(BATCH):
        await _put(store, batch, origin, is_whole, report)
        rejected += batch.rejected[: SHOWN - len(rejected)]
        report.rejected += len(batch.rejected)
        report.examples = tuple(map(str, rejected))
        advance(batch.next_row)
    return report


async def _put(
    store: FeatureStore,
    batch: ItemParquetBatch,
    origin: Origin,
    is_whole: bool,
    report: StoreReport,
) -> None:
    there = await store.items(batch.ids)
    before, lacks = there.choose(Wanted(origin))
    values = batch.rows[origin.feature]
    is_new = there.status == MISSING
    has: Mask = np.asarray(values.any(axis=1))
    differs = lacks | (values != before[origin.feature]).any(axis=1)
    report.without += int((has == 0)[there.status == FOUND].sum())
    report.same += int((has & ~differs & (there.status == FOUND)).sum())
    report.damaged += int((there.status == CORRUPT).sum())
    if is_whole:
        ids, rows = batch.ids[is_new], batch.rows[is_new]
        if batch.texts:
            await store.name_items({item: batch.texts[item] for item in ids.tolist()})
        origins = np.where(has[is_new], np.uint64(origin.number), np.uint64(GIVEN))
        await store.put_items(ids, rows, Contents.of(origin.feature, origins, rows.dtype))
        report.inserted += len(ids)
    else:
        report.not_in_store += int(is_new.sum())
    is_there = has & (there.status == FOUND)  # and in its vector as the table at the end
    changed = np.flatnonzero(is_there & differs)
    for start in range(0, len(changed), AT_ONCE):
        places = changed[start : start + AT_ONCE].tolist()
        patches = (_patch(store, int(batch.ids[at]), origin, values[at]) for at in places)
        done = await asyncio.gather(*patches)
        is_there[places] = done
        report.written += sum(done)
        report.not_in_store += len(done) - sum(done)  # deleted meanwhile
    if batch.descriptions:  # after the records, also those of an earlier run that was killed
        ids = batch.ids[is_there | is_new & is_whole]
        await _put_texts(store, {item: batch.descriptions[item] for item in ids.tolist()})


async def _patch(
    store: FeatureStore, item: int, origin: Origin, value: NDArray[np.floating]
) -> bool:
    def change(row: ItemRows) -> None:
        row[origin.feature][0] = value

    return await store.patch_item(item, change, origin)


async def _put_texts(store: FeatureStore, texts: Mapping[int, Description]) -> None:
    """Write the texts that differ, of items whose records are still there."""
    ids = np.array(list(texts), np.int64)
    try:
        kept: Sequence[Description | None] = await store.descriptions(ids)
    except StoreCorrupt:  # of one item; all are put again
        kept = [None] * len(ids)
    pairs = zip(ids.tolist(), kept, strict=True)
    differing = np.array([item for item, own in pairs if own != texts[item]], np.int64)
    if len(differing):
        is_there = (await store.items(differing)).status != MISSING
        await store.put_descriptions({item: texts[item] for item in differing[is_there].tolist()})


def _of_one(schema: FeatureSchema, feature: Dense) -> FeatureSchema:
    """A schema of one feature, to read a table that has no others."""
    return schema.model_copy(
        update={"item": (feature,), "identity": None, "context": (), "user": (), "request": ()}
    )
