"""User records of an LMDB store: read with the history in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from feature_store.codec import UserCodec, decode_history
from feature_store.contract import FOUND, MISSING, Ids, User, UserBatch, UserRows
from feature_store.errors import StoreCorrupt, StoreMismatch
from feature_store.lmdb.change_log import SeenKeys
from feature_store.lmdb.environment import USERS, LmdbEnvironment, Txn
from feature_store.lmdb.names import USER, Names
from feature_store.lmdb.records import key_of, keys_of
from feature_store.schema import FeatureSchema


class UserRecords:
    """Reads the records, and makes the changes of a write's transaction."""

    def __init__(self, environment: LmdbEnvironment, names: Names, schema: FeatureSchema) -> None:
        self._environment, self._names = environment, names
        self._histories = environment.db["histories"]
        self.adopt(schema)

    def adopt(self, schema: FeatureSchema) -> None:
        """Take the user features of a schema that was read again."""
        self._dtype, self._longest = schema.user_dtype, schema.history_length
        self.codec = UserCodec(schema) if schema.user else None

    def needed_codec(self) -> UserCodec:
        """The codec. StoreMismatch if there are no user features."""
        if self.codec is None:
            raise StoreMismatch(
                f"{self._environment.path}: its schema has no user features; load it with a schema"
                " that has (load --schema)"
            )
        return self.codec

    def read(self, user: int) -> User:
        """Read history and record from one snapshot."""
        key, users = key_of(user), self._environment.db.get(USERS)
        if users is None or self.codec is None:
            row, status = np.zeros(1, self._dtype), MISSING
            packed = self._environment.get(key, self._histories)
        else:
            packed, record = self._environment.read(
                lambda txn: (txn.get(key, db=self._histories), txn.get(key, db=users))
            )
            row, status = self.codec.decode_one(user, record)
        if packed is None:
            return User(None, row, status)
        try:
            return User(decode_history(user, packed)[: self._longest], row, status)
        except StoreCorrupt as fault:
            return User(None, row, status, fault)

    def read_all(self, ids: Ids) -> UserBatch:
        users = self._environment.db.get(USERS)
        if users is None or self.codec is None:
            status = np.full(len(ids), MISSING, np.uint8)
            return UserBatch(ids, np.zeros(len(ids), self._dtype), status)
        keys = keys_of(ids)
        records = self._environment.read(lambda txn: [txn.get(key, db=users) for key in keys])
        return self.codec.decode(ids, records)

    def putting(
        self, ids: Ids, rows: UserRows, texts: Mapping[int, str] | None
    ) -> Callable[[Txn], None]:
        order = np.argsort(ids, kind="stable")  # LMDB inserts in key order fastest
        records = self.needed_codec().encode(ids[order], rows[order])
        pairs = list(zip(keys_of(ids[order]), records, strict=True))

        def change(txn: Txn) -> None:
            if texts:
                self._names.put(txn, USER, texts)
            with txn.cursor(self._environment.db[USERS]) as cursor:
                cursor.putmulti(pairs)

        return change

    def patching(self, user: int, change: Callable[[UserRows], None]) -> Callable[[Txn], bool]:
        codec, key, ids = self.needed_codec(), key_of(user), np.array([user])

        def patch(txn: Txn) -> bool:
            db = self._environment.db[USERS]
            record = txn.get(key, db=db)
            if record is None:
                return False
            batch = codec.decode(ids, [record])
            if batch.status[0] != FOUND:
                raise codec.unpatchable(user, record, int(batch.status[0]))
            change(batch.rows)
            txn.put(key, codec.encode(ids, batch.rows)[0], db=db)
            return True

        return patch

    def delete(self, txn: Txn, user: int) -> bool:
        """Delete a record, and without a history the text of the user."""
        users = self._environment.db.get(USERS)
        gone = users is not None and txn.delete(key_of(user), db=users)
        self._drop_text(txn, user)
        return gone

    def delete_history(self, txn: Txn, user: int) -> bool:
        """Delete a history, and without a record the text of the user."""
        gone: bool = txn.delete(key_of(user), db=self._histories)
        self._drop_text(txn, user)
        return gone

    def forget(self, txn: Txn, user: int, seen: SeenKeys) -> bool:
        """Erase all that the store has of a user."""
        seen.forget(txn, user)
        record, history = self.delete(txn, user), self.delete_history(txn, user)
        return record or history

    def _drop_text(self, txn: Txn, user: int) -> None:
        """Delete the text of a user without record and history."""
        key, users = key_of(user), self._environment.db.get(USERS)
        kept = [self._histories, *([] if users is None else [users])]
        if all(txn.get(key, db=db) is None for db in kept):
            self._names.delete(txn, USER, user)

    def fault(self, user: int) -> str | None:
        users = self._environment.db.get(USERS)
        if users is None or self.codec is None:
            return None
        record = self._environment.read(lambda txn: txn.get(key_of(user), db=users))
        return None if record is None else self.codec.fault(user, record)
