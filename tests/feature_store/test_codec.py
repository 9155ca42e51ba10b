"""Stored bytes: round trips, golden files of every format, and damage told item by item."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.codec import FORMAT, ItemCodec, decode_history, encode_history
from feature_store.contract import CORRUPT, FOUND, MAX_ID, MISSING
from feature_store.errors import StoreCorrupt
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from tests.feature_store.golden_records import GOLDEN
from tests.feature_store.samples import SHOP, ids, random_rows

any_id = st.integers(0, MAX_ID)
some_ids = st.lists(any_id, max_size=50).map(lambda values: np.array(values, np.int64))
features = st.lists(
    st.one_of(
        st.just({"kind": "categorical"}),
        st.builds(lambda n: {"kind": "categorical_list", "slots": n}, st.integers(1, 9)),
        st.builds(
            lambda n, precision: {"kind": "dense", "size": n, "storage": precision},
            st.integers(1, 40),
            st.sampled_from(["float32", "float16"]),
        ),
    ),
    min_size=1,
    max_size=6,
)


def schema_of(item: list[dict[str, object]]) -> FeatureSchema:
    made: list[Categorical | CategoricalList | Dense] = []
    for number, feature in enumerate(item):
        common = {"name": f"f{number}", "width": 4, **feature}
        match feature["kind"]:
            case "categorical":
                made.append(Categorical.model_validate(common | {"vocabulary": 9}))
            case "categorical_list":
                made.append(CategoricalList.model_validate(common | {"vocabulary": 9}))
            case _:
                made.append(Dense.model_validate(common))
    return FeatureSchema(name="any", history_length=5, item=tuple(made))


@given(features, some_ids, st.integers(0, 2**32 - 1))
def test_records_come_back_byte_for_byte(
    item: list[dict[str, object]], item_ids: np.ndarray, seed: int
) -> None:
    codec = ItemCodec(schema_of(item))
    noise = np.random.default_rng(seed).bytes(len(item_ids) * codec.dtype.itemsize)
    rows = np.frombuffer(noise, codec.dtype)
    records = codec.encode(item_ids, rows)
    batch = codec.decode(item_ids, records)
    assert (batch.status == FOUND).all()
    assert batch.rows.tobytes() == noise
    assert not any(map(codec.fault, item_ids.tolist(), records))


@given(any_id, some_ids)
def test_histories_come_back(user: int, newest_first: np.ndarray) -> None:
    assert (
        decode_history(user, encode_history(user, newest_first)).tolist() == newest_first.tolist()
    )


@pytest.mark.parametrize("folder", [GOLDEN / f"v{FORMAT}"], ids=lambda folder: folder.name)
def test_every_format_ever_written_is_still_read(folder: Path) -> None:
    codec = ItemCodec(FeatureSchema.read(folder / "schema.yaml"))
    expected = json.loads((folder / "expected.json").read_text())
    for item, features_of_it in expected["items"].items():
        batch = codec.decode(ids(int(item)), [(folder / f"item-{item}.bin").read_bytes()])
        assert batch.status.tolist() == [FOUND]
        for name, value in features_of_it.items():
            assert batch.rows[name][0].tolist() == value
    for user, newest_first in expected["histories"].items():
        record = (folder / f"history-{user}.bin").read_bytes()
        assert decode_history(int(user), record).tolist() == newest_first


def test_the_current_format_writes_its_golden_bytes() -> None:
    """Bytes may only change together with ``FORMAT``: other programs read them too."""
    folder = GOLDEN / f"v{FORMAT}"
    codec = ItemCodec(SHOP)
    for path in folder.glob("item-*.bin"):
        item = ids(int(path.stem.removeprefix("item-")))
        record = path.read_bytes()
        assert codec.encode(item, codec.decode(item, [record]).rows) == [record]
    for path in folder.glob("history-*.bin"):
        user = int(path.stem.removeprefix("history-"))
        assert encode_history(user, decode_history(user, path.read_bytes())) == path.read_bytes()


def resealed(record: bytes) -> bytes:
    """The record with a checksum that matches: only the header can betray it."""
    return record[:-4] + crc32(record[:-4]).to_bytes(4, "little")


SOUND = ItemCodec(SHOP).encode(ids(5), random_rows(SHOP, 1))[0]
OTHER_LAYOUT = FeatureSchema.from_yaml(SHOP.to_yaml().replace("stock", "shelf"), source="other")
DAMAGED = {
    "empty": (b"", "not an item record"),
    "text": (b"x" * len(SOUND), "not an item record"),
    "cut": (SOUND[:-1], "bytes instead of"),
    "longer": (SOUND + b"\0", "bytes instead of"),
    "bit": (SOUND[:30] + bytes([SOUND[30] ^ 1]) + SOUND[31:], "checksum"),
    "newer": (resealed(SOUND[:2] + b"\x03" + SOUND[3:]), "format 3 is newer"),
    "item": (ItemCodec(SHOP).encode(ids(6), random_rows(SHOP, 1))[0], "holds item 6"),
    "schema": (
        ItemCodec(OTHER_LAYOUT).encode(ids(5), random_rows(OTHER_LAYOUT, 1))[0],
        "another schema",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_damaged_record_costs_only_its_own_item(damage: str, place: int) -> None:
    codec, rows = ItemCodec(SHOP), random_rows(SHOP, 3)
    item_ids = ids(5, 5, 5)
    records: list[bytes | None] = list(codec.encode(item_ids, rows))
    records[place], reason = DAMAGED[damage]
    batch = codec.decode(item_ids, records)
    others = [at for at in range(3) if at != place]
    assert batch.status[place] == CORRUPT
    assert (batch.status[others] == FOUND).all()
    assert not any(batch.rows[place].tobytes())
    assert batch.rows[others].tobytes() == rows[others].tobytes()
    assert reason in (codec.fault(5, DAMAGED[damage][0]) or "")


def test_one_damaged_record_alone() -> None:
    assert ItemCodec(SHOP).decode(ids(5), [SOUND[:-1]]).status.tolist() == [CORRUPT]
    assert ItemCodec(SHOP).decode(ids(5), [None]).status.tolist() == [MISSING]


@given(st.integers(0, len(SOUND) * 8 - 1))
def test_any_flipped_bit_is_seen(bit: int) -> None:
    flipped = bytearray(SOUND)
    flipped[bit // 8] ^= 1 << bit % 8
    assert ItemCodec(SHOP).decode(ids(5), [bytes(flipped)]).status.tolist() == [CORRUPT]
    assert ItemCodec(SHOP).fault(5, bytes(flipped))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(noise: bytes) -> None:
    assert ItemCodec(SHOP).decode(ids(5), [noise]).status.tolist() == [CORRUPT]


HISTORY = encode_history(7, ids(3, 2, 1))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "not a history record"),
        (b"QI" + HISTORY[2:], "not a history record"),
        (HISTORY[:-1], "damaged"),
        (HISTORY[:20] + b"\x09" + HISTORY[21:], "damaged"),
        (encode_history(8, ids(3)), "damaged"),
        (resealed(HISTORY[:2] + b"\x02" + HISTORY[3:]), "format 2 is newer"),
    ],
)
def test_a_damaged_history_says_what_is_wrong(record: bytes, reason: str) -> None:
    with pytest.raises(StoreCorrupt, match=f"history of user 7: .*{reason}"):
        decode_history(7, record)
