"""Opens a Redis store by its URL."""

from __future__ import annotations

from dataclasses import replace

from feature_store.faults import FaultLog
from feature_store.options import StoreOptions
from feature_store.redis.cluster import Cluster
from feature_store.redis.sentinel import Sentinel
from feature_store.redis.standalone import Standalone
from feature_store.redis.store import RedisStore
from feature_store.redis.topology import Topology, place
from feature_store.redis.url import parse
from feature_store.schema import FeatureSchema


async def connect_redis(
    store_url: str, schema: FeatureSchema | None, options: StoreOptions, *, create: bool
) -> RedisStore:
    """Open the store, as ``feature_store.connect``. Raises StoreMismatch for a malformed URL."""
    url = parse(store_url)
    options = replace(options, prefix=url.prefix or options.prefix)
    kinds: dict[str, type[Standalone] | type[Sentinel] | type[Cluster]] = {
        "": Standalone,
        "sentinel": Sentinel,
        "cluster": Cluster,
    }
    faults = FaultLog()
    nodes: Topology = kinds[url.kind](url, options.budget_ms / 1e3, faults)
    where = f"{place(url.addresses[0])} (prefix {options.prefix})"
    try:
        return await RedisStore.open(
            nodes, where, schema, options, faults, create=create, kind=url.kind
        )
    except BaseException:
        await nodes.close()
        raise
