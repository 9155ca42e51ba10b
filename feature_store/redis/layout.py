"""Keys and commands of a Redis store. With prefix ``qin`` and 64 partitions:

    qin:h:{7}          list     user 7's item ids, newest first; expires
    qin:k:{7}:abc      string   idempotency key abc of user 7 has been applied; expires
    qin:i:{17}:81      string   item 81, an item record (81 mod 64 = 17)
    qin:ids:{17}       set      ids of the items in partition 17
    qin:changes        stream   ids of items that were put or deleted, or soon will be; bounded
    qin:meta           hash     format, schema, partitions
    qin:note:load      string   how far a load has come

The part in braces is the cluster's hash tag: an item and its partition's set are in one slot, and
so are a user's history and keys. Updates of several keys are scripts: atomic, in one round trip.
On one server the script also appends to the change log; in a cluster
``feature_store.redis.announcer`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from feature_store.contract import Append
from feature_store.redis.connection import Parts
from feature_store.redis.replies import IDS, id_of
from feature_store.redis.topology import Command

# KEYS: history [, idempotency key]. ARGV: length, seconds, the key's seconds, oldest … newest.
_APPEND = """
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if ARGV[4] then
  redis.call('LPUSH', KEYS[1], unpack(ARGV, 4))
  redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if KEYS[2] then redis.call('SET', KEYS[2], '', 'EX', ARGV[3]) end
return 1"""

# KEYS: history. ARGV: seconds, newest … oldest.
_REPLACE = """
redis.call('DEL', KEYS[1])
if ARGV[2] then
  redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return 1"""

# KEYS: the partition's set, items. ARGV: ids, then records, in the order of the items.
_PUT = """
local count = #KEYS - 1
redis.call('SADD', KEYS[1], unpack(ARGV, 1, count))
for at = 1, count do redis.call('SET', KEYS[at + 1], ARGV[count + at]) end
return count"""

# KEYS: the partition's set, items. ARGV: ids.
_DELETE = """
redis.call('SREM', KEYS[1], unpack(ARGV))
return redis.call('DEL', unpack(KEYS, 2))"""

# KEYS: item. ARGV: the record it must have, the record it gets.
_SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1"""


# The same for one server, which holds every key. The change log comes first: if appending to it
# fails, the script stops and nothing is written.

# KEYS: the change log, the items' sets, the items. ARGV: length of the log, ids in one text, ids,
# records.
_PUT_AND_TELL = """
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'ids', ARGV[2])
local count = (#KEYS - 1) / 2
for at = 1, count do
  redis.call('SADD', KEYS[1 + at], ARGV[2 + at])
  redis.call('SET', KEYS[1 + count + at], ARGV[2 + count + at])
end
return count"""

# KEYS: the change log, the items' sets, the items. ARGV: length of the log, ids in one text, ids.
_DELETE_AND_TELL = """
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'ids', ARGV[2])
local count, gone = (#KEYS - 1) / 2, 0
for at = 1, count do
  redis.call('SREM', KEYS[1 + at], ARGV[2 + at])
  gone = gone + redis.call('DEL', KEYS[1 + count + at])
end
return gone"""

# KEYS: item, the change log. ARGV: the record it must have, the record it gets, length of the log,
# the id.
_SWAP_AND_TELL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'ids', ARGV[4])
redis.call('SET', KEYS[1], ARGV[2])
return 1"""


class Layout:
    """Commands on the keys of one prefix."""

    def __init__(self, prefix: str, partitions: int) -> None:
        self._prefix = prefix
        self._items = [f"{prefix}:i:{{{n}}}:" for n in range(partitions)]
        self._sets = [f"{prefix}:ids:{{{n}}}".encode() for n in range(partitions)]
        self.partitions = partitions
        self.changes = f"{prefix}:changes".encode()
        self.histories = f"{prefix}:h:{{*}}"  # the pattern of every history's key

    def history(self, user_id: int) -> bytes:
        return b"%b:h:{%d}" % (self._prefix.encode(), user_id)

    def user_of(self, history_key: bytes) -> int | None:
        """The user id in a history's key; None for a key of another program."""
        user = id_of(history_key[history_key.rindex(b"{") + 1 : -1])
        return user if user is not None and self.history(user) == history_key else None

    def note(self, name: str) -> bytes:
        return f"{self._prefix}:note:{name}".encode()

    def item(self, item_id: int) -> bytes:
        return f"{self._items[item_id % self.partitions]}{item_id}".encode()

    def read_history(self, user_id: int, length: int) -> Command:
        key = self.history(user_id)
        return Command(("LRANGE", key, 0, length - 1), key)

    def append(self, append: Append, length: int, ttl_s: int, key_ttl_s: int) -> Command:
        """Push ids oldest first, so that the newest ends up at the head."""
        keys = [self.history(append.user_id)]
        if append.key is not None:
            keys.append(f"{self._prefix}:k:{{{append.user_id}}}:{append.key}".encode())
        ids = [int(item) for item in append.item_ids[-length:]]
        parts: Parts = ("EVAL", _APPEND, len(keys), *keys, length, ttl_s, key_ttl_s, *ids)
        return Command(parts, keys[0], again=append.key is not None)

    def replace_history(self, user_id: int, newest_first: Sequence[int], ttl_s: int) -> Command:
        key = self.history(user_id)
        return Command(("EVAL", _REPLACE, 1, key, ttl_s, *newest_first), key)

    def read_items(self, item_ids: Sequence[int]) -> Command:
        """Read records of items; in a cluster, of one partition."""
        keys = [self.item(item) for item in item_ids]
        return Command(
            ("MGET", *keys),
            keys[0],
            per_key_fallback=lambda: [Command(("GET", k), k) for k in keys],
        )

    def put_items(self, partition: int, item_ids: Sequence[int], records: list[bytes]) -> Command:
        index, keys = self._sets[partition], [self.item(item) for item in item_ids]

        def per_key_fallback() -> list[Command]:
            sets = [Command(("SET", k, r), k) for k, r in zip(keys, records, strict=True)]
            return [Command(("SADD", index, *item_ids), index), *sets]

        parts: Parts = ("EVAL", _PUT, len(keys) + 1, index, *keys, *item_ids, *records)
        return Command(parts, index, per_key_fallback=per_key_fallback)

    def delete_items(self, partition: int, item_ids: Sequence[int]) -> Command:
        """Reply: how many existed; of the fallback, a list that ends with the set's reply."""
        index, keys = self._sets[partition], [self.item(item) for item in item_ids]

        def per_key_fallback() -> list[Command]:
            deletions = [Command(("DEL", key), key) for key in keys]
            return [*deletions, Command(("SREM", index, *item_ids), index)]

        parts: Parts = ("EVAL", _DELETE, len(keys) + 1, index, *keys, *item_ids)
        return Command(parts, index, per_key_fallback=per_key_fallback)

    def swap_item(self, item_id: int, before: bytes, after: bytes) -> Command:
        key = self.item(item_id)
        return Command(("EVAL", _SWAP, 1, key, before, after), key, again=False)

    def put_and_tell(self, item_ids: Sequence[int], records: list[bytes], kept: int) -> Command:
        keys, ids = self._all_keys(item_ids), " ".join(map(str, item_ids))
        parts: Parts = ("EVAL", _PUT_AND_TELL, len(keys), *keys, kept, ids, *item_ids, *records)
        return Command(parts, keys[0])

    def delete_and_tell(self, item_ids: Sequence[int], kept: int) -> Command:
        """Reply: how many existed."""
        keys, ids = self._all_keys(item_ids), " ".join(map(str, item_ids))
        parts: Parts = ("EVAL", _DELETE_AND_TELL, len(keys), *keys, kept, ids, *item_ids)
        return Command(parts, keys[0])

    def swap_and_tell(self, item_id: int, before: bytes, after: bytes, kept: int) -> Command:
        key = self.item(item_id)
        argv: Parts = (before, after, kept, item_id)
        parts: Parts = ("EVAL", _SWAP_AND_TELL, 2, key, self.changes, *argv)
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
