"""From a URL to a store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from feature_store.contract import FeatureStore
from feature_store.errors import StoreMismatch
from feature_store.lmdb_store import LmdbStore
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema

REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster")


async def connect(
    url: str,
    schema: FeatureSchema | None = None,
    *,
    create: bool = False,
    options: StoreOptions | None = None,
) -> FeatureStore:
    """The store at ``url``: ``lmdb://relative/path`` or ``lmdb:///absolute/path``.

    ``schema`` None takes the one the store recorded. StoreMismatch names the features on which a
    given schema and the recorded one differ. ``create`` makes a missing store, for a loader: a
    server that is given a mistyped path should say so instead of serving from an empty store.
    """
    options = options or StoreOptions()
    scheme, separator, rest = url.partition("://")
    if scheme == "lmdb" and separator and rest:
        return await asyncio.to_thread(LmdbStore.open, Path(rest), schema, options, create=create)
    if scheme in REDIS_SCHEMES:
        raise StoreMismatch(f"{url}: this release has no Redis store yet; use lmdb://PATH")
    raise StoreMismatch(f"{url!r} is not a store URL; use lmdb://PATH")
