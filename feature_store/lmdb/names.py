"""Text ids of an LMDB store: ``i`` or ``u`` and the number -> the text."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from feature_store.errors import StoreMismatch, TextCollision
from feature_store.lmdb.environment import NAMES, LmdbEnvironment, Txn

ITEM, USER = b"i", b"u"
WHAT = {ITEM: "item id", USER: "user id"}
_key = struct.Struct(">cQ").pack


class Names:
    """Reads and writes the texts, in the caller's transaction; of a numeric store, none.

    A load of texts that a numeric store refused may have made their database.
    """

    def __init__(self, environment: LmdbEnvironment, *, mapped: bool) -> None:
        self._environment, self._mapped = environment, mapped

    def refuse_numeric(self) -> None:
        """Raise StoreMismatch if the store's ids are numeric."""
        if not self._mapped:
            raise StoreMismatch(
                f"{self._environment.path}: its ids are numeric: texts are not kept"
            )

    def put(self, txn: Txn, kind: bytes, texts: Mapping[int, str]) -> None:
        """Keep the texts. TextCollision, before any is written, names the first that is refused."""
        self.refuse_numeric()
        db, fresh = self._environment.db[NAMES], []
        for number, text in sorted(texts.items()):
            key = _key(kind, number)
            kept = txn.get(key, db=db)
            if kept is None:
                fresh.append((key, text.encode()))
            elif kept != text.encode():
                raise TextCollision(WHAT[kind], number, kept.decode(errors="replace"), text)
        with txn.cursor(db) as cursor:
            cursor.putmulti(fresh)

    def delete(self, txn: Txn, kind: bytes, number: int) -> None:
        if self._mapped:
            txn.delete(_key(kind, number), db=self._environment.db[NAMES])

    def texts(self, kind: bytes, numbers: Sequence[int]) -> list[str | None]:
        """Return the text of each number; None for one without."""
        if not self._mapped:
            return [None] * len(numbers)
        db, keys = self._environment.db[NAMES], [_key(kind, number) for number in numbers]
        found = self._environment.read(lambda txn: [txn.get(key, db=db) for key in keys])
        return [None if text is None else text.decode(errors="replace") for text in found]
