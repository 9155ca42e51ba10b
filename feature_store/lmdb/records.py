"""Keys of an LMDB store's records, and scans of its databases."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable

import numpy as np

from feature_store.contract import Ids
from feature_store.lmdb.environment import LmdbEnvironment, Txn

key_of = struct.Struct(">Q").pack  # big-endian, so that LMDB's order is the ids' order


def keys_of(ids: Ids) -> list[bytes]:
    packed = ids.astype(">u8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


async def scan(
    environment: Callable[[], LmdbEnvironment], database: str, batch_size: int
) -> AsyncIterator[tuple[Ids, list[bytes]]]:
    """Yield (ids, records) in id order, each batch from its own short read transaction."""
    start = key_of(0)
    db = environment().db[database]

    def look(txn: Txn) -> list[tuple[bytes, bytes]]:
        with txn.cursor(db) as cursor:
            found = cursor.set_range(start)
            return (
                [pair for pair, _ in zip(cursor.iternext(), range(batch_size), strict=False)]
                if found
                else []
            )

    while pairs := await asyncio.to_thread(environment().read, look):
        keys = b"".join(key for key, _ in pairs)
        yield np.frombuffer(keys, ">u8").astype(np.int64), [record for _, record in pairs]
        start = pairs[-1][0] + b"\0"  # the first key after the last one seen
