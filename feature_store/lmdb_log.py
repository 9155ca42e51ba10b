"""Two bounded logs of an LMDB store: item changes, and the idempotency keys seen lately."""

from __future__ import annotations

import struct
import time
from hashlib import blake2b

import numpy as np

from feature_store.contract import Changes, Ids
from feature_store.lmdb_environment import LmdbEnvironment, Txn

IDS_PER_ENTRY = 512
ENTRIES_PER_ANSWER = 256
_key = struct.Struct(">Q").pack


class ChangeLog:
    """Entries numbered from 1, each a few item ids. Entry 1 is empty, so that there is an end."""

    def __init__(self, environment: LmdbEnvironment, kept: int) -> None:
        self._env, self._kept = environment, kept
        self._db = environment.db["changes"]

    def begin(self, txn: Txn) -> None:
        """The first entry of a new store."""
        if not txn.stat(self._db)["entries"]:
            txn.put(_key(1), b"", db=self._db)

    def add(self, txn: Txn, item_ids: Ids) -> None:
        number = self._last(txn)
        for at in range(0, len(item_ids), IDS_PER_ENTRY):
            number += 1
            entry = item_ids[at : at + IDS_PER_ENTRY].astype("<i8").tobytes()
            txn.put(_key(number), entry, db=self._db)
        with txn.cursor(self._db) as cursor:
            surplus = txn.stat(self._db)["entries"] - self._kept
            while surplus > 0 and cursor.first():
                cursor.delete()
                surplus -= 1

    def since(self, cursor: str | None) -> Changes:
        return self._env.read(lambda txn: self._since(txn, cursor))

    def _since(self, txn: Txn, cursor: str | None) -> Changes:
        nothing = np.zeros(0, np.int64)
        last = self._last(txn)
        if cursor is None:
            return Changes(str(last), nothing, lost=False)
        number = int(cursor) if cursor.isdigit() else 0
        if txn.get(_key(number), db=self._db) is None:  # dropped, or of another store
            return Changes(str(last), nothing, lost=True)
        end = min(last, number + ENTRIES_PER_ANSWER)
        entries = [txn.get(_key(at), db=self._db) or b"" for at in range(number + 1, end + 1)]
        return Changes(str(end), np.frombuffer(b"".join(entries), "<i8"), lost=False)

    def _last(self, txn: Txn) -> int:
        with txn.cursor(self._db) as cursor:
            return int.from_bytes(cursor.key(), "big") if cursor.last() else 0


class SeenKeys:
    """Idempotency keys of each user, forgotten after ``ttl_s``."""

    def __init__(self, environment: LmdbEnvironment, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._keys, self._times = environment.db["seen_keys"], environment.db["seen_times"]

    def first_time(self, txn: Txn, user_id: int, key: str) -> bool:
        """Whether the key is new; it is remembered from now on."""
        now = time.time()
        self._forget(txn, now - self._ttl_s)
        name = _key(user_id) + blake2b(key.encode(), digest_size=16).digest()
        if txn.get(name, db=self._keys) is not None:
            return False
        txn.put(name, b"", db=self._keys)
        txn.put(_key(int(now * 1e6)) + name, b"", db=self._times)
        return True

    def _forget(self, txn: Txn, before: float) -> None:
        """Drop a few of what has expired: more than come in, so that the log stays bounded."""
        with txn.cursor(self._times) as cursor:
            for _ in range(8):
                if not cursor.first() or cursor.key()[:8] > _key(int(max(0.0, before) * 1e6)):
                    return
                txn.delete(cursor.key()[8:], db=self._keys)
                cursor.delete()
