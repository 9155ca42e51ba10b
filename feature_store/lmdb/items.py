"""Item records of an LMDB store, and the changes of a write's transaction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from feature_store.codec import ItemCodec
from feature_store.contents import Contents, Origin
from feature_store.contract import Ids, ItemBatch, ItemRows
from feature_store.lmdb.change_log import ChangeLog
from feature_store.lmdb.environment import LmdbEnvironment, Txn
from feature_store.lmdb.records import keys_of
from feature_store.schema import FeatureSchema
from feature_store.schema_record import CONTENTS, check_content, has_contents

CONTENT = b"content"  # in the metadata: the feature of the contents


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

    def putting(self, ids: Ids, rows: ItemRows, contents: Contents | None) -> Callable[[Txn], None]:
        order = np.argsort(ids, kind="stable")  # LMDB inserts in key order fastest
        ordered = None if contents is None else contents.take(order)
        records = self.codec.encode(ids[order], rows[order], ordered)
        pairs = list(zip(keys_of(ids[order]), records, strict=True))

        def change(txn: Txn) -> None:
            if contents is not None:
                self._record_content(txn, contents.feature)
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

    def patching(
        self, ids: Ids, change: Callable[[ItemRows], None], origin: Origin | None
    ) -> Callable[[Txn], bool]:
        """Patch the item that is alone in ``ids``."""
        [key] = keys_of(ids)

        def patch(txn: Txn) -> bool:
            record = txn.get(key, db=self._db)
            if record is None:
                return False
            after = self.codec.patched(ids, record, change, origin)
            if origin is not None:
                self._record_content(txn, origin.feature)
            txn.put(key, after, db=self._db)
            self._changes.add(txn, ids)
            return True

        return patch

    def _record_content(self, txn: Txn, feature: str) -> None:
        """Record that the store has contents, and of which feature. ContentMismatch."""
        meta = self._environment.db["meta"]
        check_content(str(self._environment.path), txn.get(CONTENT, db=meta), feature)
        version = txn.get(b"format", db=meta)
        if version is not None and not has_contents(version):
            txn.put(b"format", str(int(version) + CONTENTS).encode(), db=meta)
            txn.put(CONTENT, feature.encode(), db=meta)

    def content_fact(self) -> dict[str, str]:
        """Name the feature of the store's contents, if it has any."""
        meta = self._environment.db["meta"]
        feature = self._environment.read(lambda txn: txn.get(CONTENT, db=meta))
        return {} if feature is None else {"content": feature.decode(errors="replace")}

    def fault(self, ids: Ids) -> str | None:
        [record], [item] = self._records(keys_of(ids)), ids.tolist()
        return None if record is None else self.codec.fault(item, record)

    def _records(self, keys: list[bytes]) -> list[bytes | None]:
        return self._environment.read(lambda txn: [txn.get(key, db=self._db) for key in keys])
