"""The vectorised index answers as a dict does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.hash_index import ABSENT, BUCKET, MULTIPLIER, HashIndex

ids = st.integers(0, 2**63 - 1)


@given(st.lists(ids, unique=True, max_size=200), st.lists(ids, max_size=50), st.integers(1, 50))
def test_finds_what_a_dict_finds(known: list[int], others: list[int], batch: int) -> None:
    index, truth = HashIndex.empty(len(known)), {}
    for start in range(0, len(known), batch):
        part = known[start : start + batch]
        rows = np.arange(start, start + len(part))
        index.insert(np.array(part, np.int64), rows)
        truth |= dict(zip(part, rows.tolist(), strict=True))
    asked = [*known, *others, *known]
    found = index.find(np.array(asked, np.int64)).tolist()
    assert found == [truth.get(item, ABSENT) for item in asked]
    assert index.count == len(known)


def test_ids_that_share_one_bucket_overflow_into_the_next() -> None:
    """Ids chosen so that the multiplier sends every one of them to the same, last, bucket."""
    count, buckets = 3 * BUCKET, HashIndex.buckets(3 * BUCKET)
    inverse = pow(int(MULTIPLIER), -1, 2**64)
    last = (buckets - 1) << (64 - (buckets.bit_length() - 1))
    candidates = ((last + i) * inverse % 2**64 for i in range(10_000))
    colliding = np.array([c for c in candidates if c < 2**63][:count], np.int64)
    assert len(colliding) == count
    index = HashIndex.empty(count)
    index.insert(colliding[:20], np.arange(20))
    index.insert(colliding[20:], np.arange(20, count))
    assert index.find(colliding).tolist() == list(range(count))
    assert index.find(np.array([5])).tolist() == [ABSENT]


def test_a_full_index_is_at_most_half_full_of_keys() -> None:
    for capacity in (0, 1, 7, 8, 9, 1000, 91_717):
        assert HashIndex.buckets(capacity) * BUCKET >= 2 * capacity
