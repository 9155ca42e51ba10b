"""Keys and commands of a Redis store. With prefix ``qin`` and 64 partitions:

    qin:h:{7}          list     user 7's item ids, newest first; expires
    qin:k:{7}:abc      string   idempotency key abc of user 7 has been applied; expires
    qin:ks:{7}         zset     user 7's idempotency keys, by the time they expire at; expires
    qin:u:{7}          string   user 7's features, a user record
    qin:ut:{7}         string   text ids: the text that user 7 stands for; expires with the history
                                unless there is a user record
    qin:i:{17}:81      string   item 81, an item record (81 mod 64 = 17)
    qin:it:{17}:81     string   text ids: the text that item 81 stands for; stays
    qin:d:{17}:81      string   the texts that are kept of item 81, JSON by language
    qin:ids:{17}       set      ids of the items in partition 17
    qin:changes        stream   ids of items that were put or deleted, or soon will be; bounded
    qin:meta           hash     format, schema, partitions; id_key: the key of text ids, 16 bytes;
                                content: the feature that has contents of texts
    qin:note:load      string   how far a load has come

The part in braces is the cluster's hash tag: items, their texts and their partition's set are in
one slot, and so are a user's history, record, text and keys. Updates of several keys are scripts
(``feature_store.redis.scripts``): atomic, in one round trip. On one server the script also appends
to the change log; in a cluster ``feature_store.redis.announcer`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from feature_store.contract import Append, Ids
from feature_store.redis import scripts
from feature_store.redis.connection import Parts
from feature_store.redis.replies import IDS, id_of
from feature_store.redis.topology import Command


class Layout:
    """Commands on the keys of one prefix."""

    def __init__(self, prefix: str, partitions: int) -> None:
        self._prefix = prefix
        self._items = [f"{prefix}:i:{{{n}}}:" for n in range(partitions)]
        self._texts = [f"{prefix}:it:{{{n}}}:" for n in range(partitions)]
        self._descriptions = [f"{prefix}:d:{{{n}}}:" for n in range(partitions)]
        self._sets = [f"{prefix}:ids:{{{n}}}".encode() for n in range(partitions)]
        self.partitions, self.meta = partitions, meta_key(prefix)
        self.changes = f"{prefix}:changes".encode()
        self.histories = f"{prefix}:h:{{*}}"  # patterns: every history's key, every user record's
        self.users = f"{prefix}:u:{{*}}"

    def history(self, user_id: int) -> bytes:
        return b"%b:h:{%d}" % (self._prefix.encode(), user_id)

    def user(self, user_id: int) -> bytes:
        return b"%b:u:{%d}" % (self._prefix.encode(), user_id)

    def user_keys(self, user_id: int) -> bytes:
        return b"%b:ks:{%d}" % (self._prefix.encode(), user_id)

    def user_of(self, key: bytes) -> int | None:
        """The user id in a history's or user record's key; None for a key of another program."""
        user = id_of(key[key.rindex(b"{") + 1 : -1])
        known = user is not None and key in (self.history(user), self.user(user))
        return user if known else None

    def note(self, name: str) -> bytes:
        return f"{self._prefix}:note:{name}".encode()

    def item(self, item_id: int) -> bytes:
        return f"{self._items[item_id % self.partitions]}{item_id}".encode()

    def item_text(self, item_id: int) -> bytes:
        return f"{self._texts[item_id % self.partitions]}{item_id}".encode()

    def description(self, item_id: int) -> bytes:
        return f"{self._descriptions[item_id % self.partitions]}{item_id}".encode()

    def user_text(self, user_id: int) -> bytes:
        return b"%b:ut:{%d}" % (self._prefix.encode(), user_id)

    def by_partition(self, ids: Ids) -> Iterator[np.ndarray[Any, np.dtype[np.intp]]]:
        """Group positions by partition."""
        if not len(ids):
            return
        partition = ids % self.partitions
        order = np.argsort(partition, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(partition[order])) + 1)

    def read_history(self, user_id: int, length: int) -> Command:
        key = self.history(user_id)
        return Command(("LRANGE", key, 0, length - 1), key)

    def append(self, append: Append, length: int, ttl_s: int, key_ttl_s: int) -> Command:
        """Push ids oldest first, so that the newest ends up at the head.

        Reply: whether they were; the text that is kept, if the append's is another.
        """
        keys, argv, script = (
            [self.history(append.user_id)],
            [length, ttl_s, key_ttl_s],
            scripts.APPEND,
        )
        texts: Parts = ()
        if append.user_text is not None:
            keys.append(self.user_text(append.user_id))
            texts, script = (append.user_text,), scripts.APPEND_WITH_TEXT
        if append.key is not None:
            key = f"{self._prefix}:k:{{{append.user_id}}}:{append.key}".encode()
            keys += [key, self.user_keys(append.user_id)]
        ids = [int(item) for item in append.item_ids[-length:]]
        parts: Parts = ("EVAL", script, len(keys), *keys, *argv, *texts, *ids)
        return Command(parts, keys[0], again=append.key is not None)

    def replace_history(
        self, user_id: int, newest_first: Sequence[int], ttl_s: int, text: str | None = None
    ) -> Command:
        """Replace a history, with the user's ``text`` if given.

        Reply: 1; the text that is kept, if it is another.
        """
        key = self.history(user_id)
        if text is None:
            return Command(("EVAL", scripts.REPLACE, 1, key, ttl_s, *newest_first), key)
        keys = (key, self.user_text(user_id))
        return Command(
            ("EVAL", scripts.REPLACE_WITH_TEXT, 2, *keys, ttl_s, text, *newest_first), key
        )

    def delete_history_and_text(self, user_id: int) -> Command:
        """Reply: whether there was a history; of the fallback, a list that ends with it."""
        history, text = self.history(user_id), self.user_text(user_id)
        return Command(
            ("EVAL", scripts.DELETE_WITH_TEXT, 2, history, text),
            history,
            per_key_fallback=lambda: [
                Command(("EVAL", scripts.DELETE_EXPIRING, 1, text), text),
                Command(("DEL", history), history),
            ],
        )

    def forget(self, user_id: int, idempotency: Sequence[bytes]) -> Command:
        """Delete all that belongs to a user, with these of the user's idempotency keys.

        Reply: whether there was a record, whether there was a history, how many of the keys are
        left; of the fallback, a list that ends with them.
        """
        ours = f"{self._prefix}:k:{{{user_id}}}:".encode()
        strings = [key for key in idempotency if key.startswith(ours)]
        record, history = self.user(user_id), self.history(user_id)
        text, keys = self.user_text(user_id), self.user_keys(user_id)

        def per_key_fallback() -> list[Command]:
            removed: list[Parts] = [("ZREM", keys, *idempotency)] if idempotency else []
            deleted: list[Parts] = [("DEL", key) for key in (*strings, text, record, history)]
            parts: list[Parts] = [*removed, *deleted, ("ZCARD", keys)]
            return [Command(part, record) for part in parts]  # one slot

        return Command(
            (
                *("EVAL", scripts.FORGET, 4 + len(strings), record, history, text, keys),
                *(*strings, *idempotency),
            ),
            record,
            per_key_fallback=per_key_fallback,
        )

    def read_items(self, item_ids: Sequence[int]) -> Command:
        """Read records of items; in a cluster, of one partition."""
        return self.read_keys([self.item(item) for item in item_ids])

    def read_keys(self, keys: Sequence[bytes]) -> Command:
        """Read strings of one slot; without a cluster, of any."""
        return Command(
            ("MGET", *keys),
            keys[0],
            per_key_fallback=lambda: [Command(("GET", k), k) for k in keys],
        )

    def keep_item_texts(self, item_ids: Sequence[int], texts: Sequence[str]) -> Command:
        """Keep the texts of items that have none; in a cluster, of one partition.

        Reply: it ends with what is now kept of each.
        """
        keys = [self.item_text(item) for item in item_ids]

        def per_key_fallback() -> list[Command]:
            kept = [Command(("SETNX", k, t), k) for k, t in zip(keys, texts, strict=True)]
            return [*kept, *(Command(("GET", key), key) for key in keys)]

        parts: Parts = ("EVAL", scripts.KEEP_TEXTS, len(keys), *keys, *texts)
        return Command(parts, keys[0], per_key_fallback=per_key_fallback)

    def put_items(self, partition: int, item_ids: Sequence[int], records: list[bytes]) -> Command:
        index, keys = self._sets[partition], [self.item(item) for item in item_ids]

        def per_key_fallback() -> list[Command]:
            sets = [Command(("SET", k, r), k) for k, r in zip(keys, records, strict=True)]
            return [Command(("SADD", index, *item_ids), index), *sets]

        parts: Parts = ("EVAL", scripts.PUT, len(keys) + 1, index, *keys, *item_ids, *records)
        return Command(parts, index, per_key_fallback=per_key_fallback)

    def delete_items(self, partition: int, item_ids: Sequence[int]) -> Command:
        """Reply: how many existed; of the fallback, a list that ends with the set's reply."""
        index, keys = self._sets[partition], [self.item(item) for item in item_ids]

        def per_key_fallback() -> list[Command]:
            deletions = [Command(("DEL", key), key) for key in keys]
            return [*deletions, Command(("SREM", index, *item_ids), index)]

        parts: Parts = ("EVAL", scripts.DELETE, len(keys) + 1, index, *keys, *item_ids)
        return Command(parts, index, per_key_fallback=per_key_fallback)

    def swap_item(self, item_id: int, before: bytes, after: bytes) -> Command:
        key = self.item(item_id)
        return Command(("EVAL", scripts.SWAP, 1, key, before, after), key, again=False)

    def put_and_tell(self, item_ids: Sequence[int], records: list[bytes], kept: int) -> Command:
        keys, ids = self._all_keys(item_ids), " ".join(map(str, item_ids))
        argv: Parts = (kept, ids, *item_ids, *records)
        return Command(("EVAL", scripts.PUT_AND_TELL, len(keys), *keys, *argv), keys[0])

    def delete_and_tell(self, item_ids: Sequence[int], kept: int) -> Command:
        """Reply: how many existed."""
        keys, ids = self._all_keys(item_ids), " ".join(map(str, item_ids))
        parts: Parts = ("EVAL", scripts.DELETE_AND_TELL, len(keys), *keys, kept, ids, *item_ids)
        return Command(parts, keys[0])

    def swap_and_tell(self, item_id: int, before: bytes, after: bytes, kept: int) -> Command:
        key = self.item(item_id)
        argv: Parts = (before, after, kept, item_id)
        parts: Parts = ("EVAL", scripts.SWAP_AND_TELL, 2, key, self.changes, *argv)
        return Command(parts, key, again=False)

    def _all_keys(self, item_ids: Sequence[int]) -> list[bytes]:
        sets = [self._sets[item % self.partitions] for item in item_ids]
        return [self.changes, *sets, *map(self.item, item_ids)]

    def scan_partition(self, partition: int, cursor: bytes, count: int) -> Command:
        index = self._sets[partition]
        return Command(("SSCAN", index, cursor, "COUNT", count), index)

    def count_partition(self, partition: int) -> Command:
        index = self._sets[partition]
        return Command(("SCARD", index), index)

    def tell_changes(self, item_ids: Sequence[int], kept: int, field: bytes = IDS) -> Command:
        ids = " ".join(map(str, item_ids))
        return Command(("XADD", self.changes, "MAXLEN", "~", kept, "*", field, ids), self.changes)

    def read_changes(self, cursor: str, count: int) -> Command:
        """Read from the cursor's own entry on: if it is gone, later ones may be, too."""
        key = self.changes
        return Command(("XRANGE", key, cursor, "+", "COUNT", count + 1), key)

    def last_change(self) -> Command:
        return Command(("XREVRANGE", self.changes, "+", "-", "COUNT", 1), self.changes)


def meta_key(prefix: str) -> bytes:
    return f"{prefix}:meta".encode()
