"""Lua scripts of a Redis store: what changes several keys of one slot, whole or not at all."""

from __future__ import annotations


def _remember(key: str, keys: str) -> str:
    """Set the idempotency key and enter it in the user's keys, without those that have expired.

    ``pcall``: a Redis user that may not use the commands of sorted sets appends as before.
    """
    return f"""
  redis.call('SET', {key}, '', 'EX', ARGV[3])
  local now = redis.pcall('TIME')[1]
  if now then
    redis.pcall('ZREMRANGEBYSCORE', {keys}, '-inf', now)
    redis.pcall('ZADD', {keys}, now + ARGV[3], {key})
    redis.pcall('EXPIRE', {keys}, ARGV[3])
  end"""


# KEYS: metadata. ARGV: the schema and format it must have, or nothing; fields and values.
RECORD = """
local found = redis.call('HMGET', KEYS[1], 'schema', 'format')
if (found[1] or '') ~= ARGV[1] or (found[2] or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1"""

# KEYS: metadata. ARGV: the feature of contents, what they add to the format. Reply: the feature
# that is recorded.
RECORD_CONTENT = """
local found = redis.call('HMGET', KEYS[1], 'content', 'format')
if found[1] then return found[1] end
redis.call('HSET', KEYS[1], 'content', ARGV[1], 'format', found[2] + ARGV[2])
return ARGV[1]"""

# KEYS: history [, idempotency key, the user's keys]. ARGV: length, seconds, the key's seconds,
# oldest … newest.
APPEND = f"""
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if ARGV[4] then
  redis.call('LPUSH', KEYS[1], unpack(ARGV, 4))
  redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if KEYS[2] then {_remember("KEYS[2]", "KEYS[3]")}
end
return 1"""

# KEYS: history. ARGV: seconds, newest … oldest.
REPLACE = """
redis.call('DEL', KEYS[1])
if ARGV[2] then
  redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return 1"""


# The same with the user's text. It expires with the history, or, with a user record, not at all.
# The reply is the text that is kept, if it is another: then nothing is written.


def _keep_text(text: str, seconds: str) -> str:
    return f"""
  if not kept then redis.call('SET', KEYS[2], {text}, 'EX', {seconds})
  elseif redis.call('TTL', KEYS[2]) ~= -1 then redis.call('EXPIRE', KEYS[2], {seconds}) end"""


# KEYS: history, text [, idempotency key, the user's keys]. ARGV: length, seconds, the key's
# seconds, text, oldest … newest.
APPEND_WITH_TEXT = f"""
local kept = redis.call('GET', KEYS[2])
if kept and kept ~= ARGV[4] then return kept end
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if ARGV[5] then
  redis.call('LPUSH', KEYS[1], unpack(ARGV, 5))
  redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
  redis.call('EXPIRE', KEYS[1], ARGV[2]) {_keep_text("ARGV[4]", "ARGV[2]")}
end
if KEYS[3] then {_remember("KEYS[3]", "KEYS[4]")}
end
return 1"""

# KEYS: history, text. ARGV: seconds, text, newest … oldest; at least one.
REPLACE_WITH_TEXT = f"""
local kept = redis.call('GET', KEYS[2])
if kept and kept ~= ARGV[2] then return kept end
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[1]) {_keep_text("ARGV[2]", "ARGV[1]")}
return 1"""

# KEYS: text.
DELETE_EXPIRING = """
if redis.call('TTL', KEYS[1]) == -1 then return 0 end
return redis.call('DEL', KEYS[1])"""

# KEYS: history, text.
DELETE_WITH_TEXT = """
if redis.call('TTL', KEYS[2]) ~= -1 then redis.call('DEL', KEYS[2]) end
return redis.call('DEL', KEYS[1])"""

# KEYS: user record, text. ARGV: record, text.
PUT_USER_WITH_TEXT = """
local kept = redis.call('GET', KEYS[2])
if kept and kept ~= ARGV[2] then return kept end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return 1"""

# KEYS: user record, text, history. The text goes with the history.
DELETE_USER_WITH_TEXT = """
local seconds = redis.call('TTL', KEYS[3])
if seconds == -2 then redis.call('DEL', KEYS[2])
elseif seconds >= 0 then redis.call('EXPIRE', KEYS[2], math.max(seconds, 1)) end
return redis.call('DEL', KEYS[1])"""

# KEYS: user record, history, text, the user's keys, idempotency keys. ARGV: members of the user's
# keys. Reply: whether there was a record, whether there was a history, how many keys are left.
FORGET = """
for at = 5, #KEYS do redis.call('DEL', KEYS[at]) end
if ARGV[1] then redis.call('ZREM', KEYS[4], unpack(ARGV)) end
redis.call('DEL', KEYS[3])
return {redis.call('DEL', KEYS[1]), redis.call('DEL', KEYS[2]), redis.call('ZCARD', KEYS[4])}"""

# KEYS: texts of items. ARGV: the texts.
KEEP_TEXTS = """
local kept = {}
for at, key in ipairs(KEYS) do
  redis.call('SETNX', key, ARGV[at])
  kept[at] = redis.call('GET', key)
end
return kept"""

# KEYS: the partition's set, items. ARGV: ids, then records, in the order of the items.
PUT = """
local count = #KEYS - 1
redis.call('SADD', KEYS[1], unpack(ARGV, 1, count))
for at = 1, count do redis.call('SET', KEYS[at + 1], ARGV[count + at]) end
return count"""

# KEYS: the partition's set, items. ARGV: ids.
DELETE = """
redis.call('SREM', KEYS[1], unpack(ARGV))
return redis.call('DEL', unpack(KEYS, 2))"""

# KEYS: item. ARGV: the record it must have, the record it gets.
SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1"""


# The same for one server, which holds every key. The change log comes first: if appending to it
# fails, the script stops and nothing is written.

# KEYS: the change log, the items' sets, the items. ARGV: length of the log, ids in one text, ids,
# records.
PUT_AND_TELL = """
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'ids', ARGV[2])
local count = (#KEYS - 1) / 2
for at = 1, count do
  redis.call('SADD', KEYS[1 + at], ARGV[2 + at])
  redis.call('SET', KEYS[1 + count + at], ARGV[2 + count + at])
end
return count"""

# KEYS: the change log, the items' sets, the items. ARGV: length of the log, ids in one text, ids.
DELETE_AND_TELL = """
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'ids', ARGV[2])
local count, gone = (#KEYS - 1) / 2, 0
for at = 1, count do
  redis.call('SREM', KEYS[1 + at], ARGV[2 + at])
  gone = gone + redis.call('DEL', KEYS[1 + count + at])
end
return gone"""

# KEYS: item, the change log. ARGV: the record it must have, the record it gets, length of the log,
# the id.
SWAP_AND_TELL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'ids', ARGV[4])
redis.call('SET', KEYS[1], ARGV[2])
return 1"""
