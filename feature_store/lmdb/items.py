"""Item records of an LMDB store, and the changes of a write's transaction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from feature_store.codec import ItemCodec
from feature_store.contract import Ids, ItemBatch, ItemRows
from feature_store.errors import StoreCorrupt
from feature_store.lmdb.change_log import ChangeLog
from feature_store.lmdb.environment import LmdbEnvironment, Txn
from feature_store.lmdb.records import keys_of
from feature_store.schema import FeatureSchema


class ItemRecords:
    """Reads the records; each change is entered in the change log."""

    def __init__(
        self, environment: LmdbEnvironment, changes: ChangeLog, schema: FeatureSchema
    ) -> None:
        self._environment, self._changes = environment, changes
        self._db = environment.db["items"]
        self.codec = ItemCodec(schema)

    def read(self, ids: Ids) -> ItemBatch:
        return self.codec.decode(ids, self._records(keys_of(ids)))

    def putting(self, ids: Ids, rows: ItemRows) -> Callable[[Txn], None]:
        order = np.argsort(ids, kind="stable")  # LMDB inserts in key order fastest
        records = self.codec.encode(ids[order], rows[order])
        pairs = list(zip(keys_of(ids[order]), records, strict=True))

        def change(txn: Txn) -> None:
            with txn.cursor(self._db) as cursor:
                cursor.putmulti(pairs)
            self._changes.add(txn, ids)

        return change

    def deleting(self, ids: Ids) -> Callable[[Txn], int]:
        def change(txn: Txn) -> int:
            gone = [at for at, key in enumerate(keys_of(ids)) if txn.delete(key, db=self._db)]
            self._changes.add(txn, ids[gone])
            return len(gone)

        return change

    def patching(self, ids: Ids, change: Callable[[ItemRows], None]) -> Callable[[Txn], bool]:
        """Patch the item that is alone in ``ids``."""
        [key], [item] = keys_of(ids), ids.tolist()

        def patch(txn: Txn) -> bool:
            record = txn.get(key, db=self._db)
            if record is None:
                return False
            if fault := self.codec.fault(item, record):
                raise StoreCorrupt(f"item {item}: {fault}; replace the whole item")
            row = self.codec.decode(ids, [record]).rows
            change(row)
            txn.put(key, self.codec.encode(ids, row)[0], db=self._db)
            self._changes.add(txn, ids)
            return True

        return patch

    def fault(self, ids: Ids) -> str | None:
        [record], [item] = self._records(keys_of(ids)), ids.tolist()
        return None if record is None else self.codec.fault(item, record)

    def _records(self, keys: list[bytes]) -> list[bytes | None]:
        return self._environment.read(lambda txn: [txn.get(key, db=self._db) for key in keys])
