"""Contents of items: their bytes, the vector that a reader asks for, what a patch keeps."""

from __future__ import annotations

import json
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.codec import CONTENT_FORMAT, ItemCodec
from feature_store.contents import (
    ENCODED,
    GIVEN,
    Contents,
    Origin,
    Wanted,
    digest_number,
    digest_text,
)
from feature_store.contract import CORRUPT, FOUND, MISSING, ItemRows
from feature_store.errors import StoreMismatch
from tests.feature_store.golden_records import GOLDEN
from tests.feature_store.samples import SHOP, ids, random_rows

FEATURE, SIZE = "picture", 6
OLD, NEW, NEWEST = "00000000000000aa", "bbbbbbbbbbbbbbbb", "0c0c0c0c0c0c0c0c"
numbers = st.integers(0, 2**64 - 1)
one_item = st.lists(numbers, min_size=1, max_size=3)


def contents_of(origins: list[list[int]], seed: int = 0) -> Contents:
    """Contents of items, each with these origins, its row's first."""
    random = np.random.default_rng(seed)
    row = np.array([own[0] for own in origins], np.uint64)
    made = Contents.of(FEATURE, row, SHOP.item_dtype)
    for at, (_, *others) in enumerate(origins):
        made.count[at] = len(others)
        made.others[at, : len(others)] = np.array(others, np.uint64)
        made.vectors[at, : len(others)] = random.normal(size=(len(others), SIZE))
    return made


def with_vector(digest: str | None, value: float, record: bytes | None = None) -> bytes:
    """A record after a patch that writes a vector of an origin."""
    codec = ItemCodec(SHOP)
    record = record or codec.encode(ids(5), random_rows(SHOP, 1))[0]

    def change(row: ItemRows) -> None:
        row[FEATURE] = value

    origin = Origin(FEATURE, digest) if digest else None
    return codec.patched(ids(5), record, change, origin)


def vector(record: bytes, digest: str, *, given: bool = False) -> float | None:
    """The vector that a reader of a digest gets, each number of it; None if the item lacks it."""
    batch = ItemCodec(SHOP).decode(ids(5), [record])
    rows, lacks = batch.choose(Wanted(Origin(FEATURE, digest), given))
    [values] = np.unique(rows[FEATURE])[None]
    assert not (lacks[0] and values.any())
    return None if lacks[0] else float(values[0])


@given(st.lists(st.none() | one_item, max_size=30), st.integers(0, 2**32 - 1))
def test_contents_come_back_byte_for_byte(items: list[list[int] | None], seed: int) -> None:
    codec, count = ItemCodec(SHOP), len(items)
    rows, item_ids = random_rows(SHOP, count, seed), np.arange(count)
    written = contents_of([origins or [GIVEN] for origins in items], seed)
    records: list[bytes | None] = list(codec.encode(item_ids, rows, written))
    records += [None, b"noise"]
    batch = codec.decode(np.arange(count + 2), records)
    assert batch.status.tolist() == [FOUND] * count + [MISSING, CORRUPT]
    assert batch.rows[:count].tobytes() == rows.tobytes()
    if batch.contents is None:
        assert all(origins in (None, [GIVEN]) for origins in items)
        return
    read = batch.contents.take(np.arange(count))
    for name in ("row", "count", "others", "vectors"):
        assert getattr(read, name).tobytes() == getattr(written, name).tobytes()


def test_an_item_without_a_digest_is_written_as_before() -> None:
    codec, rows = ItemCodec(SHOP), random_rows(SHOP, 2)
    written = contents_of([[GIVEN], [digest_number(OLD)]])
    plain, encoded = codec.encode(ids(5, 6), rows, written)
    assert [plain] == codec.encode(ids(5), rows[:1])
    assert len(encoded) == len(plain) + 8


@given(st.lists(one_item, min_size=1, max_size=4), st.data())
def test_any_flipped_bit_is_seen(items: list[list[int]], data: st.DataObject) -> None:
    codec = ItemCodec(SHOP)
    rows = random_rows(SHOP, len(items))
    records: list[bytes] = codec.encode(np.arange(len(items)), rows, contents_of(items))
    place = data.draw(st.integers(0, len(items) - 1))
    flipped = bytearray(records[place])
    bit = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    records[place] = bytes(flipped)
    status = codec.decode(np.arange(len(items)), list(records)).status
    assert status.tolist() == [CORRUPT if at == place else FOUND for at in range(len(items))]
    assert codec.fault(place, bytes(flipped))


def resealed(record: bytes) -> bytes:
    return record[:-4] + crc32(record[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (lambda record: record[:-1], "which no record with contents has"),
        (lambda record: resealed(record[:3] + b"\x00" + record[4:]), "no record with contents has"),
        (lambda record: resealed(record[:3] + b"\xff" + record[4:]), "no record with contents has"),
        (lambda record: resealed(record[:8] + b"\x06" + record[9:]), "holds item 6"),
        (lambda record: resealed(record[:4] + b"\x06" + record[5:]), "another schema"),
        (lambda record: record[:-1] + bytes([record[-1] ^ 1]), "checksum"),
    ],
)
def test_a_damaged_record_says_what_is_wrong(damaged: object, reason: str) -> None:
    assert callable(damaged)
    record = damaged(with_vector(OLD, 1))
    codec = ItemCodec(SHOP)
    assert codec.decode(ids(5), [record]).status.tolist() == [CORRUPT]
    assert reason in (codec.fault(5, record) or "")


def test_a_reader_gets_the_content_that_it_asks_for() -> None:
    record = with_vector(NEW, 2, with_vector(OLD, 1, with_vector(None, 7)))
    assert (vector(record, OLD), vector(record, NEW)) == (1, 2)
    assert vector(record, NEWEST) is None
    assert vector(record, NEWEST, given=True) == 7
    assert vector(with_vector(None, 7), OLD, given=True) == 7
    assert vector(with_vector(None, 7), OLD) is None
    assert vector(with_vector(None, 0), OLD, given=True) is None  # no vector at all


def test_a_patch_keeps_vectors_of_two_digests_and_the_given_one() -> None:
    record = with_vector(NEWEST, 3, with_vector(NEW, 2, with_vector(OLD, 1, with_vector(None, 7))))
    assert vector(record, OLD) is None
    assert (vector(record, NEW), vector(record, NEWEST)) == (2, 3)
    assert vector(record, OLD, given=True) == 7
    found = ItemCodec(SHOP).decode(ids(5), [record]).contents
    assert found is not None
    assert found.digests(0) == [NEWEST, NEW, None]
    again = with_vector(NEW, 4, record)
    assert (vector(again, NEW), vector(again, NEWEST)) == (4, 3)


def test_a_vector_that_is_given_later_stands_beside_the_encoded_ones() -> None:
    record = with_vector(None, 7, with_vector(NEW, 2, with_vector(OLD, 1, with_vector(None, 0))))
    assert (vector(record, OLD), vector(record, NEW)) == (1, 2)
    assert vector(record, NEWEST, given=True) == 7


def test_a_patch_of_another_feature_keeps_the_contents() -> None:
    record = with_vector(NEW, 2, with_vector(OLD, 1))

    def restock(row: ItemRows) -> None:
        row["stock_level"] = 3

    patched = ItemCodec(SHOP).patched(ids(5), record, restock, None)
    assert (vector(patched, OLD), vector(patched, NEW)) == (1, 2)


def test_contents_of_another_feature_are_refused() -> None:
    record = with_vector(OLD, 1)
    with pytest.raises(StoreMismatch, match="contents of picture, not of price"):
        ItemCodec(SHOP).patched(ids(5), record, lambda row: None, Origin("price", NEW))


@given(st.lists(st.tuples(st.sampled_from([None, OLD, NEW, NEWEST]), st.integers(1, 9))))
def test_the_newest_two_encoded_vectors_are_there_after_any_patches(
    patches: list[tuple[str | None, int]],
) -> None:
    record, expected = with_vector(None, 7), dict[str | None, int]()
    for digest, value in patches:
        record = with_vector(digest, value, record)
        expected.pop(digest, None)
        expected[digest] = value
    encoded = [digest for digest in expected if digest]
    for digest in (OLD, NEW, NEWEST):
        kept = digest in encoded[-ENCODED:]
        assert vector(record, digest) == (expected[digest] if kept else None)


def test_digests_are_sixteen_hexadecimal_digits() -> None:
    assert digest_text(digest_number(OLD)) == OLD
    assert digest_text(GIVEN) is None
    for wrong in ("", "x" * 16, "0" * 16, OLD + "0", OLD.upper(), OLD + "\n"):
        with pytest.raises(ValueError, match="not a digest"):
            digest_number(wrong)


def test_the_current_format_writes_its_golden_bytes() -> None:
    folder, codec = GOLDEN / f"v{CONTENT_FORMAT}", ItemCodec(SHOP)
    expected = json.loads((folder / "expected.json").read_text())
    assert len(expected) == 3
    for item, digests in expected.items():
        record = (folder / f"item-{item}.bin").read_bytes()
        batch = codec.decode(ids(int(item)), [record])
        assert batch.contents is not None
        assert batch.contents.digests(0) == digests
        assert codec.encode(batch.ids, batch.rows, batch.contents) == [record]
