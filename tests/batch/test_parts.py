"""A part proves its bytes: a change anywhere in it is found out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.output.parts import PartNote, encoded, list_array, score_array

SCORES = score_array(np.array([0.5, np.nan, 0.25, 0.125], np.float32))
COLUMNS = {"user_id": pa.array([1, 2]), "scores": list_array(SCORES, np.array([0, 1, 4]))}
# What the digest's own place might be taken for.
ODD = "0" * 64 + 'qin.batch.sha256\x18@"' + "a" * 64
NOTE = PartNote("recipe", 7, 9, {"items_scored": 3}, [(8, 1, ODD)])
PART = encoded(COLUMNS, NOTE)


def test_a_part_is_parquet_with_a_note() -> None:
    assert PartNote.of(PART) == PartNote("recipe", 7, 9, {"items_scored": 3}, [[8, 1, ODD]])  # type: ignore[list-item]
    assert pq.read_table(pa.BufferReader(PART)).equals(pa.table(COLUMNS))
    assert encoded(COLUMNS, NOTE) == PART
    PartNote.of(encoded({ODD: pa.array([ODD])}, NOTE))


@given(st.integers(0, len(PART) - 1), st.integers(1, 255))
def test_a_byte_that_was_changed_anywhere_is_found_out(at: int, change: int) -> None:
    damaged = bytearray(PART)
    damaged[at] ^= change
    with pytest.raises(ValueError, match="damaged"):
        PartNote.of(bytes(damaged))


@given(st.integers(0, len(PART) - 1), st.binary(min_size=1, max_size=9))
def test_one_that_was_cut_short_or_lengthened_is_found_out(length: int, more: bytes) -> None:
    for damaged in (PART[:length], PART + more, more + PART):
        with pytest.raises(ValueError, match="damaged"):
            PartNote.of(damaged)


def test_what_is_no_part_is_found_out() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(COLUMNS), sink)
    for data in (b"", b"qin.batch.sha256", sink.getvalue().to_pybytes()):
        with pytest.raises(ValueError, match="damaged"):
            PartNote.of(data)
