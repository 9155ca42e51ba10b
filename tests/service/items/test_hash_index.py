"""The vectorised index answers as a dict does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.items.hash_index import ABSENT, BUCKET, HashIndex, random_multiplier
from tests.service.colliding import OF_B0ED85A, colliding

ids = st.integers(0, 2**63 - 1) | st.integers(0, 500)
# So that what is put is often there already, and often removed.
near = st.integers(100, 160)


@given(st.lists(ids, unique=True, max_size=200), st.lists(ids, max_size=50), st.integers(1, 50))
def test_finds_what_a_dict_finds(known: list[int], others: list[int], batch: int) -> None:
    index, truth = HashIndex.empty(len(known)), {}
    for start in range(0, len(known), batch):
        part = known[start : start + batch]
        rows = np.arange(start, start + len(part))
        assert index.put(np.array(part, np.int64), rows).all()
        truth |= dict(zip(part, rows.tolist(), strict=True))
    asked = [*known, *others, *known]
    found = index.find(np.array(asked, np.int64)).tolist()
    assert found == [truth.get(item, ABSENT) for item in asked]


@given(st.lists(st.tuples(st.booleans(), st.lists(near, unique=True, max_size=20)), max_size=20))
def test_what_is_put_again_or_removed_is_as_in_a_dict(
    steps: list[tuple[bool, list[int]]],
) -> None:
    index, truth = HashIndex.empty(64), dict[int, int]()
    for number, (puts, part) in enumerate(steps):
        some = np.array(part, np.int64)
        if puts:
            assert index.put(some, some + 100 * number).all()
            truth |= {item: item + 100 * number for item in part}
        else:
            index.remove(some)
            truth = {item: row for item, row in truth.items() if item not in part}
    asked = np.arange(100, 161)
    assert index.find(asked).tolist() == [truth.get(item, ABSENT) for item in asked.tolist()]
    assert index.find(asked[:20]).tolist() == [truth.get(i, ABSENT) for i in range(100, 120)]


def test_ids_that_share_a_first_bucket_go_to_their_second_ones() -> None:
    index, count = HashIndex.empty(1000), 5 * BUCKET
    some = colliding(index.first, None, HashIndex.buckets(1000), count)
    assert index.put(some[:20], np.arange(20)).all()
    assert index.put(some[20:], np.arange(20, count)).all()
    assert index.find(some).tolist() == list(range(count))
    index.remove(some[::2])
    assert (index.find(some) == ABSENT).tolist() == [True, False] * (count // 2)


def test_ids_whose_buckets_are_both_full_are_refused_and_the_others_found() -> None:
    """Aimed at the index's own multipliers, which are secret outside."""
    index, count = HashIndex.empty(500), 5000
    some = colliding(index.first, index.second, HashIndex.buckets(500), count)
    others = np.arange(100)
    placed = index.put(np.concatenate([some, others]), np.arange(count + 100))
    assert BUCKET <= placed[:count].sum() <= 2 * BUCKET
    assert placed[count:].sum() >= 100 - 2 * BUCKET
    found = index.find(some)
    assert (found != ABSENT).tolist() == placed[:count].tolist()
    assert found[found != ABSENT].tolist() == np.flatnonzero(placed[:count]).tolist()
    assert not index.put(some[~placed[:count]], np.arange(count)[~placed[:count]]).any()


def test_a_batch_takes_a_few_passes_however_its_ids_collide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not one for each id that shares a bucket."""
    passes, free = 0, HashIndex._free

    def counted(index: HashIndex, *arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        return free(index, *arguments)

    monkeypatch.setattr(HashIndex, "_free", counted)
    index = HashIndex.empty(500)
    index.put(colliding(index.first, index.second, HashIndex.buckets(500), 5000), np.arange(5000))
    assert passes <= 6


def test_ids_that_collide_under_known_multipliers_do_not_collide_here() -> None:
    """Those of b0ed85a, which were constants."""
    count, placed = 1000, list[int]()
    aimed = colliding(*OF_B0ED85A, HashIndex.buckets(count), count)
    for _ in range(20):
        index = HashIndex.empty(count)
        placed.append(int(index.put(aimed, np.arange(count)).sum()))
    assert np.median(placed) == count
    assert min(placed) > 0.9 * count


def test_every_index_has_multipliers_of_its_own() -> None:
    drawn = {random_multiplier() for _ in range(1000)}
    assert len(drawn) > 990
    assert all(one % 2 and one < 2**64 for one in drawn)


def test_places_are_only_proposed() -> None:
    index, ids = HashIndex.empty(100), np.arange(1, 101)
    cells = index.places(ids)
    assert len(set(cells.tolist())) == 100
    assert (index.find(ids) == ABSENT).all()
    index.fill(cells[:50], ids[:50], np.arange(50))
    assert index.find(ids).tolist() == [*range(50), *[ABSENT] * 50]
    assert index.places(ids[:50]).tolist() == cells[:50].tolist()


def test_a_full_index_is_at_most_half_full_of_keys() -> None:
    for capacity in (0, 1, 7, 8, 9, 1000, 91_717):
        assert HashIndex.buckets(capacity) * BUCKET >= 2 * capacity


def test_many_ids_and_their_replacements_all_find_a_place() -> None:
    """Two choices keep buckets from filling: hardly one of these is ever refused."""
    count, random = 1 << 18, np.random.default_rng(0)
    index, known = HashIndex.empty(count), np.arange(1, count + 1) + 2**40
    assert index.put(known, known).all()
    for _ in range(20):
        out = random.choice(count, 4096, replace=False)
        index.remove(known[out])
        known[out] = random.integers(2**40, 2**63 - 1, 4096)
        assert index.put(known[out], out).all()
    assert (index.find(known) != ABSENT).all()


def test_hints_lead_to_what_was_put_and_second_ones_to_what_was_remembered() -> None:
    count, random = 1000, np.random.default_rng(2)
    index, known = HashIndex.empty(count), random.integers(0, 2**63 - 1, count)
    assert index.put(known, np.arange(count)).all()
    right = index.first_choice(known) == np.arange(count)
    assert right.mean() > 0.7  # the others share a hint with an id that was put later
    wrong = np.flatnonzero(~right)[:1]
    index.remember(known[wrong], wrong)
    assert index.second_choice(known[wrong]) == wrong


def test_soon_hardly_anybody_asks_the_buckets() -> None:
    """Two ids that share a hint do not take it from each other for ever."""
    count, random = 100_000, np.random.default_rng(1)
    index, known = HashIndex.empty(count), random.integers(0, 2**63 - 1, count)
    index.put(known, np.arange(count))
    popular = random.choice(count, 4000, replace=False)

    def astray() -> int:
        asked = random.choice(popular, 2000, replace=False)
        ids = known[asked]
        wrong = (index.first_choice(ids) != asked) & (index.second_choice(ids) != asked)
        index.remember(ids[wrong], asked[wrong])
        return int(wrong.sum())

    first = astray()
    later = [astray() for _ in range(20)][-5:]
    assert first > 200
    assert max(later) < 20


def test_ids_in_a_row_hardly_share_hints() -> None:
    """Of a catalogue that numbers its items few have to look further, in a full table as well.

    The multipliers are drawn anew, and shares are from 0.94 to 1, with a mean of 0.99."""
    for count in (1000, 4096, 91_717, 1 << 17):
        shares = list[float]()
        for _ in range(16):
            index, rows = HashIndex.empty(count), np.arange(count)
            index.put(rows + 1, rows)
            shares.append(float((index.first_choice(rows + 1) == rows).mean()))
        assert np.mean(shares) > 0.97
        assert min(shares) > 0.9


def test_ids_in_a_row_all_find_a_place_whatever_the_multipliers() -> None:
    for _ in range(30):
        for count, step in ((5000, 1), (5000, 10), (1 << 15, 1)):
            index, ids = HashIndex.empty(count), np.arange(1, count + 1) * step
            assert index.put(ids, np.arange(count)).mean() > 0.999
