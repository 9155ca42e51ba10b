"""Opens the store of an LMDB folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

from feature_store.lmdb.store import LmdbStore
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema


async def connect_lmdb(
    path: Path, schema: FeatureSchema | None, options: StoreOptions, *, create: bool
) -> LmdbStore:
    """Open the store, as ``feature_store.connect``."""
    while True:
        store = await asyncio.to_thread(LmdbStore.open, path, schema, options, create=create)
        is_recorded = not create or schema is None
        try:
            is_recorded = is_recorded or await store.record_schema()
        finally:
            if not is_recorded:
                await store.close()
        if is_recorded:
            return store
