"""Two bounded logs of an LMDB store: item changes, and recent idempotency keys."""

from __future__ import annotations

import itertools
import struct
import time
from hashlib import blake2b

import numpy as np

from feature_store.contract import Changes, Ids
from feature_store.faults import FaultLog
from feature_store.lmdb.environment import LmdbEnvironment, Txn

IDS_PER_ENTRY = 512
MOST_ENTRY_BYTES = 65_536  # larger entries are malformed; ours are 4 KiB at most
ENTRIES_PER_ANSWER = 256
MOST_PASSED = 1024
_key = struct.Struct(">Q").pack


class ChangeLog:
    """Entries numbered from 1, each a few item ids. Entry 1 is empty: every log has an end.

    Entries of another program (key not a number, value not a list of ids) are skipped and counted.
    """

    def __init__(self, environment: LmdbEnvironment, kept: int, faults: FaultLog) -> None:
        self._env, self._kept, self._faults = environment, kept, faults
        self._db = environment.db["changes"]
        self._passed: set[bytes] = set()  # skipped keys that are not numbers

    def begin(self, txn: Txn) -> None:
        """Write the first entry of a new store."""
        if not self._last(txn):
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
        self._env.refuse_if_replaced()
        changes = self._env.read(lambda txn: self._since(txn, cursor))
        if changes.unreadable:
            self._faults.note(
                "change log: malformed entry",
                f"{self._env.path}: {changes.unreadable} after entry {cursor}",
            )
        return changes

    def _since(self, txn: Txn, cursor: str | None) -> Changes:
        nothing = np.zeros(0, np.int64)
        last = self._last(txn)
        if cursor is None:
            return Changes(str(last), nothing, lost=False)
        number = int(cursor) if cursor.isascii() and cursor.isdigit() else 0
        if number > last or txn.get(_key(number), db=self._db) is None:
            return Changes(str(last), nothing, lost=True)  # dropped, or of another store
        end, known, unreadable = number, [nothing], 0
        with txn.cursor(self._db) as entries:
            entries.set_key(_key(number))
            for key, entry in itertools.islice(entries.iternext(), 1, 1 + ENTRIES_PER_ANSWER):
                if not _is_number(key):  # may sort after every number; counted once
                    unreadable += key not in self._passed and len(self._passed) < MOST_PASSED
                    if len(self._passed) < MOST_PASSED:
                        self._passed.add(key)
                    continue
                end = int.from_bytes(key, "big")
                ids = _ids(entry)
                if ids is None:
                    unreadable += 1
                else:
                    known.append(ids)
        return Changes(str(end), np.concatenate(known), lost=False, unreadable=unreadable)

    def _last(self, txn: Txn) -> int:
        """The number of the newest entry; 0 if there is none."""
        with txn.cursor(self._db) as cursor:
            for key in cursor.iterprev(keys=True, values=False):
                if _is_number(key):
                    return int.from_bytes(key, "big")
        return 0


def _is_number(key: bytes) -> bool:
    return len(key) == 8 and key[0] < 0x40  # below 2⁶²: the next number fits too


def _ids(entry: bytes) -> Ids | None:
    """Parse the ids of an entry; None if it is malformed."""
    if len(entry) % 8 or len(entry) > MOST_ENTRY_BYTES:
        return None
    ids: Ids = np.frombuffer(entry, "<i8").astype(np.int64)
    return None if (ids < 0).any() else ids


class SeenKeys:
    """Idempotency keys of each user; they expire after ``ttl_s``."""

    def __init__(self, environment: LmdbEnvironment, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._keys, self._times = environment.db["seen_keys"], environment.db["seen_times"]

    def first_time(self, txn: Txn, user_id: int, key: str) -> bool:
        """Record the key; return whether it is new."""
        now = time.time()
        self._forget(txn, now - self._ttl_s)
        name = _key(user_id) + blake2b(key.encode(), digest_size=16).digest()
        if txn.get(name, db=self._keys) is not None:
            return False
        time_key = _key(int(now * 1e6)) + name
        txn.put(name, time_key[:8], db=self._keys)
        txn.put(time_key, b"", db=self._times)
        return True

    def forget(self, txn: Txn, user_id: int) -> None:
        """Delete the user's keys; the times of those that earlier releases wrote expire."""
        user = _key(user_id)
        with txn.cursor(self._keys) as cursor:
            while cursor.set_range(user) and cursor.key()[:8] == user:
                txn.delete(cursor.value() + cursor.key(), db=self._times)
                cursor.delete()

    def _forget(self, txn: Txn, before: float) -> None:
        """Delete up to 8 expired keys: more than one call adds, so the log stays bounded."""
        with txn.cursor(self._times) as cursor:
            for _ in range(8):
                if not cursor.first() or cursor.key()[:8] > _key(int(max(0.0, before) * 1e6)):
                    return
                if len(cursor.key()) > 8:  # else another program's
                    txn.delete(cursor.key()[8:], db=self._keys)
                cursor.delete()
