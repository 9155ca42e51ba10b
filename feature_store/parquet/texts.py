"""Converts Arrow arrays of ids to texts: strings, UUIDs and whole numbers of other writers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.parquet.arrays import is_number, whole_numbers

UUID_BYTES = 16
DIGITS = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
HYPHENS = (8, 13, 18, 23)
PLACES = np.delete(np.arange(36), HYPHENS)  # of a UUID's 32 digits in its text


def texts(array: pa.Array) -> tuple[pa.Array, dict[int, str]] | None:
    """Read ids as large strings, and faults by position. None: the type holds no ids.

    UUIDs become lower-case texts with hyphens, whole numbers decimal ones. Nulls stay; the value
    at a fault is null.
    """
    kind, types = array.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _unicode(array.cast(pa.large_string()))
    if types.is_fixed_size_binary(kind) and kind.byte_width == UUID_BYTES:
        return _uuids(array), {}
    if types.is_integer(kind) or types.is_null(kind):
        return array.cast(pa.large_string()), {}
    if not is_number(kind):
        return None
    read = whole_numbers(array)
    assert read is not None
    values, faults = read
    missing = array.is_null().to_numpy(zero_copy_only=False)
    missing[list(faults)] = True
    return pa.array(values, mask=missing).cast(pa.large_string()), faults


def _unicode(array: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Find values that are not UTF-8, which parquet's strings may be."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        found: list[str | None] = []
        faults = {}
        for at, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
            try:
                found.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                found.append(None)
                faults[at] = "not Unicode text (UTF-8)"
        return pa.array(found, pa.large_string()), faults
    return array, {}


def _uuids(array: pa.Array) -> pa.Array:
    """(N,) texts of 16-byte values."""
    raw = array.fill_null(bytes(UUID_BYTES)).cast(pa.binary())
    values = np.frombuffer(b"".join(raw.to_pylist()), np.uint8)
    characters: NDArray[np.uint8] = np.full((len(array), 36), ord("-"), np.uint8)
    characters[:, PLACES] = DIGITS[values].reshape(len(array), 32)
    offsets = pa.py_buffer(36 * np.arange(len(array) + 1, dtype=np.int64))
    whole = pa.Array.from_buffers(
        pa.large_string(), len(array), [None, offsets, pa.py_buffer(characters.tobytes())]
    )
    return pc.if_else(array.is_valid(), whole, None)
