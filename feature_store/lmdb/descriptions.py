"""Texts that an LMDB store keeps of items: the item's number -> JSON by language."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from feature_store.contract import Ids
from feature_store.descriptions import Description, decode_description, encode_description
from feature_store.lmdb.environment import DESCRIPTIONS, LmdbEnvironment, Txn
from feature_store.lmdb.records import key_of, keys_of
from feature_store.schema_record import no_descriptions


class Descriptions:
    """Reads and writes the texts; a store that keeps none has no database of them."""

    def __init__(self, environment: LmdbEnvironment) -> None:
        self._environment = environment

    def putting(self, descriptions: Mapping[int, Description]) -> Callable[[Txn], None]:
        """Raises StoreMismatch if the store keeps none."""
        db = self._environment.db.get(DESCRIPTIONS)
        if db is None:
            raise no_descriptions(str(self._environment.path))

        def change(txn: Txn) -> None:
            for item, description in sorted(descriptions.items()):
                if description:
                    txn.put(key_of(item), encode_description(description), db=db)
                else:
                    txn.delete(key_of(item), db=db)

        return change

    def delete(self, txn: Txn, ids: Ids) -> None:
        if (db := self._environment.db.get(DESCRIPTIONS)) is not None:
            for key in keys_of(ids):
                txn.delete(key, db=db)

    def read(self, ids: Ids) -> list[dict[str, str]]:
        """Return the texts of each item. StoreCorrupt."""
        db = self._environment.db.get(DESCRIPTIONS)
        if db is None:
            return [{} for _ in ids]
        keys = keys_of(ids)
        found = self._environment.read(lambda txn: [txn.get(key, db=db) for key in keys])
        return [decode_description(i, r) for i, r in zip(ids.tolist(), found, strict=True)]
