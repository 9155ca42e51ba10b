"""Ids that fall into the same bucket, or the same two, of an index with known multipliers."""

from __future__ import annotations

import numpy as np

from feature_store.contract import Ids

# The constants that every index had at b0ed85a.
OF_B0ED85A = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
TRIED = 1 << 20  # at a time


def colliding(first: np.uint64, second: np.uint64 | None, buckets: int, count: int) -> Ids:
    """``count`` distinct ids with the last bucket as their first, and as their second one too
    unless ``second`` is None."""
    bits = buckets.bit_length() - 1
    inverse, last = pow(int(first), -1, 2**64), (buckets - 1) << (64 - bits)
    found = np.empty(0, np.int64)
    random = np.random.default_rng(0)
    while len(found) < count:
        words = random.integers(0, 1 << (64 - bits), TRIED, np.uint64) + np.uint64(last)
        ids = (words * np.uint64(inverse)).view(np.int64)
        ids = ids[ids >= 0]
        assert ((ids.view(np.uint64) * first) >> np.uint64(64 - bits) == buckets - 1).all()
        if second is not None:
            words = ids.view(np.uint64)
            words = (words ^ (words >> np.uint64(32))) * second
            ids = ids[words >> np.uint64(64 - bits) == buckets - 1]
        found = np.unique(np.concatenate([found, ids]))
    return random.permutation(found)[:count]
