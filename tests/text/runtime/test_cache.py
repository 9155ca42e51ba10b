"""The cache of vectors is bounded, and keeps what was used last."""

from __future__ import annotations

import numpy as np

from text.runtime.cache import ENTRY_BYTES, Entry, VectorCache

ENTRY = Entry(np.zeros(25, np.float32), 4, False)


def test_the_least_recently_used_entry_goes_first() -> None:
    cache = VectorCache(3 * (ENTRY_BYTES + 100))
    a, b, c, d = (VectorCache.key("encoder", text) for text in "abcd")
    for key in (a, b, c):
        cache.put(key, ENTRY)
    assert cache.get(a) is ENTRY
    cache.put(d, ENTRY)
    assert len(cache) == 3
    assert cache.get(b) is None
    assert cache.get(a) is not None


def test_an_entry_put_twice_counts_once() -> None:
    cache = VectorCache(2 * (ENTRY_BYTES + 100))
    for text in "aaab":
        cache.put(VectorCache.key("encoder", text), ENTRY)
    assert len(cache) == 2


def test_no_entry_is_kept_that_is_larger_than_the_cache() -> None:
    cache = VectorCache(100)
    cache.put(VectorCache.key("encoder", "a"), ENTRY)
    assert len(cache) == 0


def test_keys_differ_by_encoder_and_text() -> None:
    keys = {VectorCache.key(e, t) for e in ("a", "b") for t in ("x", "y", "")}
    assert len(keys) == 6
