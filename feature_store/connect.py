"""Opens a store by its URL."""

from __future__ import annotations

import re
from pathlib import Path

from feature_store.contract import FeatureStore
from feature_store.errors import StoreMismatch
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema

REDIS_SCHEMES = frozenset(
    f"{protocol}{kind}"
    for protocol in ("redis", "rediss", "valkey", "valkeys")
    for kind in ("", "+sentinel", "+cluster")
) | {"unix"}
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
HOLDS_A_PASSWORD = re.compile(r"[@?#]|:(?!//)")


async def connect(
    url: str,
    schema: FeatureSchema | None = None,
    *,
    create: bool = False,
    options: StoreOptions | None = None,
) -> FeatureStore:
    """Open the store at ``url``: ``lmdb://relative/path``, ``lmdb:///absolute/path`` or a Redis URL
    (``feature_store.redis.url``).

    Without ``schema``, the recorded one is used; StoreMismatch names the features on which they
    differ. ``create`` creates a missing store, for a loader: a server with a mistyped path must
    fail instead of serving from an empty store.
    """
    options = options or StoreOptions()
    scheme, separator, rest = url.partition("://")
    # Imported on demand: they are slow to import, and a child process that checks a bundle needs
    # neither.
    if scheme == "lmdb" and separator and rest:
        from feature_store.lmdb.connect import connect_lmdb

        return await connect_lmdb(Path(rest), schema, options, create=create)
    if scheme in REDIS_SCHEMES and separator and rest:
        from feature_store.redis.connect import connect_redis

        return await connect_redis(url, schema, options, create=create)
    raise StoreMismatch(
        f"{shown(url)!r} is not a store URL; use lmdb://PATH, redis://HOST, rediss://HOST, "
        "redis+sentinel://HOST,HOST/SERVICE, redis+cluster://HOST,HOST or unix:///PATH"
    )


def shown(url: str) -> str:
    """Return the URL for messages: no more than its scheme if it may hold a password."""
    if not HOLDS_A_PASSWORD.search(url):
        return url
    scheme, separator, _ = url.partition("://")
    return f"{scheme}://…" if separator and SCHEME.fullmatch(scheme) else "…"
