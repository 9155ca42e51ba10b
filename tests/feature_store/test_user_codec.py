"""Stored users: golden files of every format, records of earlier schemas, damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.codec import FORMAT, ItemCodec, UserCodec
from feature_store.contract import CORRUPT, FOUND, MISSING, STALE
from feature_store.schema import FeatureSchema
from tests.feature_store.golden_records import USERS
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.user_samples import (
    COUNTRY,
    DEVICE,
    LIKES,
    SCHEMA,
    TASTE,
    user_rows,
    with_users,
)

CODEC = UserCodec(SCHEMA)
SOUND = CODEC.encode(ids(5), user_rows(1))[0]


@pytest.mark.parametrize("folder", sorted(USERS.iterdir()), ids=lambda folder: folder.name)
def test_every_format_ever_written_is_still_read(folder: Path) -> None:
    codec = UserCodec(FeatureSchema.read(folder / "schema.yaml"))
    for user, features in json.loads((folder / "expected.json").read_text()).items():
        record = (folder / f"user-{user}.bin").read_bytes()
        batch = codec.decode(ids(int(user)), [record])
        assert batch.status.tolist() == [FOUND]
        for name, value in features.items():
            assert batch.rows[name][0].tolist() == value
        if folder.name == f"v{FORMAT}":
            assert codec.encode(ids(int(user)), batch.rows) == [record]
        row, status = codec.decode_one(int(user), record)
        assert (row.tobytes(), status) == (batch.rows.tobytes(), FOUND)


@pytest.mark.parametrize(
    ("features", "status"),
    [
        ((COUNTRY,), FOUND),
        ((COUNTRY, LIKES), FOUND),
        ((COUNTRY, LIKES, TASTE), FOUND),
        ((COUNTRY, LIKES, TASTE, DEVICE), STALE),
        ((LIKES, COUNTRY, TASTE), STALE),
        ((DEVICE,), STALE),
    ],
)
def test_a_record_of_another_schema(features: tuple[dict[str, object], ...], status: int) -> None:
    schema = with_users(*features)
    rows = user_rows(1, schema=schema)
    [record] = UserCodec(schema).encode(ids(5), rows)
    batch = CODEC.decode(ids(4, 5, 6), [None, record, SOUND])
    assert batch.status.tolist() == [MISSING, status, CORRUPT]
    for at, one in enumerate((None, record, SOUND)):
        row, found = CODEC.decode_one(4 + at, one)
        assert (row.tobytes(), found) == (batch.rows[at : at + 1].tobytes(), batch.status[at])
    for name in SCHEMA.user_dtype.names or ():
        known = status == FOUND and name in schema.user_dtype.names
        assert batch.rows[name][1].tobytes() == (
            rows[name][0].tobytes() if known else bytes(batch.rows[name][1].nbytes)
        )
    assert CODEC.fault(5, record) == (None if status == FOUND else "written with another schema")


@given(st.integers(0, len(SOUND) * 8 - 1))
def test_any_flipped_bit_is_seen(bit: int) -> None:
    flipped = bytearray(SOUND)
    flipped[bit // 8] ^= 1 << bit % 8
    assert CODEC.decode(ids(5), [bytes(flipped)]).status.tolist() == [CORRUPT]
    assert CODEC.decode_one(5, bytes(flipped))[1] == CORRUPT
    assert CODEC.fault(5, bytes(flipped))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(noise: bytes) -> None:
    assert CODEC.decode(ids(5), [noise]).status.tolist() == [CORRUPT]


def test_an_item_record_and_another_user_s_are_no_record_of_this_one() -> None:
    [item] = ItemCodec(SHOP).encode(ids(5), random_rows(SHOP, 1))
    [other] = UserCodec(with_users(DEVICE)).encode(
        ids(6), np.zeros(1, with_users(DEVICE).user_dtype)
    )
    assert CODEC.decode(ids(5, 5, 6), [item, other, SOUND]).status.tolist() == [CORRUPT] * 3
    assert CODEC.fault(5, item) == "not a user record"
    assert CODEC.fault(6, SOUND) == "holds user 5"
