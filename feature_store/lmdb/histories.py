"""Changes of histories in an LMDB store, for the writer's transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from feature_store.codec import decode_history, encode_history
from feature_store.contract import Append, Ids
from feature_store.ids import checked_id, checked_ids
from feature_store.lmdb.change_log import SeenKeys
from feature_store.lmdb.environment import LmdbEnvironment, Txn
from feature_store.lmdb.names import USER, Names
from feature_store.lmdb.records import key_of
from feature_store.lmdb.users import UserRecords


class Histories:
    """Appends to histories and replaces them, with the text ids of their users."""

    def __init__(
        self, environment: LmdbEnvironment, names: Names, users: UserRecords, seen: SeenKeys
    ) -> None:
        self._environment, self._names, self._users, self._seen = environment, names, users, seen

    def appending(self, append: Append, length: int) -> Callable[[Txn], bool]:
        """Push clicks, and keep ``length`` of them. The change returns whether its key was new."""
        user = checked_id(append.user_id, "user id")
        newest_first = checked_ids(append.item_ids, "item id")[::-1]
        db = self._environment.db["histories"]
        if append.user_text is not None:
            self._names.refuse_numeric()

        def change(txn: Txn) -> bool:
            record = txn.get(key_of(user), db=db)
            before = newest_first[:0] if record is None else decode_history(user, record)
            if append.user_text is not None and len(newest_first):
                self._names.put(txn, USER, {user: append.user_text})
            if append.key is not None and not self._seen.first_time(txn, user, append.key):
                if record is None:
                    self._users.delete_history(txn, user)  # there is none: only the text goes
                return False
            after = np.concatenate([newest_first, before])[:length]
            if len(after):
                txn.put(key_of(user), encode_history(user, after), db=db)
            return True

        return change

    def replacing(
        self, histories: Mapping[int, Ids], texts: Mapping[int, str] | None, length: int
    ) -> Callable[[Txn], None]:
        """Replace whole histories; an empty one is deleted."""
        pairs, kept_users, emptied = [], [], []
        for user_id, newest_first in sorted(histories.items()):
            user = checked_id(user_id, "user id")
            kept = checked_ids(newest_first, "item id")[:length]
            if len(kept):
                pairs.append((key_of(user), encode_history(user, kept)))
                kept_users.append(user)
            else:
                emptied.append(user)

        def change(txn: Txn) -> None:
            if texts:
                self._names.put(txn, USER, {user: texts[user] for user in kept_users})
            with txn.cursor(self._environment.db["histories"]) as cursor:
                cursor.putmulti(pairs)
            for user in emptied:
                self._users.delete_history(txn, user)

        return change
