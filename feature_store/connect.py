"""From a URL to a store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from feature_store import redis_url
from feature_store.contract import FeatureStore
from feature_store.errors import StoreMismatch
from feature_store.lmdb_store import LmdbStore
from feature_store.options import StoreOptions
from feature_store.redis_cluster import Cluster
from feature_store.redis_nodes import Nodes, Sentinel, Standalone, place
from feature_store.redis_store import RedisStore
from feature_store.schema import FeatureSchema


async def connect(
    url: str,
    schema: FeatureSchema | None = None,
    *,
    create: bool = False,
    options: StoreOptions | None = None,
) -> FeatureStore:
    """The store at ``url``: ``lmdb://relative/path``, ``lmdb:///absolute/path`` or a Redis URL
    (``feature_store.redis_url``).

    ``schema`` None takes the one the store recorded. StoreMismatch names the features on which a
    given schema and the recorded one differ. ``create`` makes a missing store, for a loader: a
    server that is given a mistyped path should say so instead of serving from an empty store.
    """
    options = options or StoreOptions()
    scheme, separator, rest = url.partition("://")
    if scheme == "lmdb" and separator and rest:
        return await asyncio.to_thread(LmdbStore.open, Path(rest), schema, options, create=create)
    if scheme in redis_url.SCHEMES and separator and rest:
        return await _redis(redis_url.parse(url), schema, options, create=create)
    raise StoreMismatch(
        f"{_shown(url)!r} is not a store URL; use lmdb://PATH, redis://HOST, rediss://HOST, "
        "redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST"
    )


async def _redis(
    url: redis_url.RedisUrl, schema: FeatureSchema | None, options: StoreOptions, *, create: bool
) -> RedisStore:
    options = replace(options, prefix=url.prefix or options.prefix)
    kinds: dict[str, type[Standalone] | type[Sentinel] | type[Cluster]] = {
        "": Standalone,
        "sentinel": Sentinel,
        "cluster": Cluster,
    }
    nodes: Nodes = kinds[url.kind](url, options.budget_ms / 1e3)
    where = f"{place(url.addresses[0])} (prefix {options.prefix})"
    try:
        return await RedisStore.open(nodes, where, schema, options, create=create, kind=url.kind)
    except BaseException:
        await nodes.close()
        raise


def _shown(url: str) -> str:
    """The URL without what may be a password."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
