"""Converts Arrow arrays of other writers to plain numbers and lists.

Encodings of the same values are unwrapped: dictionaries (pandas categories), extension types such
as tensors (their storage), list views. Identifiers written as decimals or doubles become integers
where they are whole.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Largest magnitude up to which every whole number has an exact floating-point value.
EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}


def plain(array: pa.Array) -> pa.Array:
    """Unwrap extension types, dictionaries and views of lists and texts; other arrays stay as they
    are."""
    if isinstance(array, pa.ExtensionArray):
        permuted = getattr(array.type, "permutation", None)
        if permuted is not None and list(permuted) != sorted(permuted):
            return array  # the stored order is not the tensor's: refused by its type
        return plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        return _as_list(array)
    kind = _without_text_views(array.type)
    return array if kind == array.type else array.cast(kind)


def whole_numbers(array: pa.Array) -> tuple[NDArray[np.generic], dict[int, str]] | None:
    """Read integers, or whole numbers of another type, as (N,) integers and faults by position.

    Nulls are 0, without a fault. None: the type holds no numbers. A column without any value has
    the type null.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.int64), {}
    if pa.types.is_integer(kind):
        return numbers(array), {}
    if pa.types.is_floating(kind):
        return _whole_floats(numbers(array), EXACT[kind])
    if pa.types.is_decimal(kind):
        try:
            return numbers(array.cast(pa.int64())), {}
        except pa.ArrowException:  # a fraction, or beyond 64 bits
            return _whole_decimals(array)
    return None


def numbers(array: pa.Array) -> NDArray[np.generic]:
    """Return (N,) values, decimals as doubles; nulls are 0."""
    if pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.float64())
    filled = array.fill_null(0) if array.null_count else array
    values: NDArray[np.generic] = filled.to_numpy(zero_copy_only=False)
    return values


def flattened(array: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return all elements (E,) of lists, unwrapped, and the lists' lengths (N,): 0 of a null."""
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    return plain(array.flatten()), lengths.astype(np.int64)


def is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold numbers; null: a column without any value."""
    types = pa.types
    return bool(
        types.is_floating(kind)
        or types.is_integer(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def _whole_floats(
    values: NDArray[np.generic], exact: int
) -> tuple[NDArray[np.int64], dict[int, str]]:
    doubles = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        good = (np.abs(doubles) <= exact) & (doubles == np.trunc(doubles))
    faults = {at: _not_whole(doubles[at], exact) for at in np.flatnonzero(~good).tolist()}
    return np.where(good, doubles, 0).astype(np.int64), faults


def _not_whole(value: np.float64, exact: int) -> str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "infinite"
    if value != np.trunc(value):
        return f"{value:g} is not a whole number"
    return f"{value:g} is beyond {exact}, where floating point loses digits; write integers"


def _whole_decimals(array: pa.Array) -> tuple[NDArray[np.int64], dict[int, str]]:
    values, faults = np.zeros(len(array), np.int64), {}
    for at, value in enumerate(array.to_pylist()):
        if value is None:
            continue
        if value != value.to_integral_value():
            faults[at] = f"{value} is not a whole number"
        elif not -(2**63) <= value < 2**63:
            faults[at] = f"{value} is beyond 63 bits"
        else:
            values[at] = int(value)
    return values, faults


def _without_text_views(kind: pa.DataType) -> pa.DataType:
    """Return the type with large texts in place of views, of which pyarrow takes none."""
    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_list(kind):
        return pa.list_(_field_without_views(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_field_without_views(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_field_without_views(kind.value_field), kind.list_size)
    if types.is_struct(kind):
        return pa.struct([_field_without_views(field) for field in kind])
    if types.is_map(kind):
        key, item = (_field_without_views(field) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    return kind


def _field_without_views(field: pa.Field) -> pa.Field:
    return field.with_type(_without_text_views(field.type))


def _as_list(array: pa.Array) -> pa.Array:
    """Copy a list view to a list: pyarrow's cast is wrong for rows that are null."""
    missing = array.is_null().to_numpy(zero_copy_only=False)
    count = len(array)
    sizes = np.where(missing, 0, np.asarray(array.sizes)[:count])
    starts = np.asarray(array.offsets)[:count]
    ends = np.cumsum(sizes)
    taken = np.arange(ends[-1] if count else 0) + np.repeat(starts - (ends - sizes), sizes)
    values = array.values
    if pa.types.is_string_view(values.type):  # pyarrow takes none of these
        values = values.cast(pa.large_string())
    values = values.take(pa.array(taken, pa.int64()))
    return pa.LargeListArray.from_arrays(
        pa.array(np.concatenate([[0], ends]), pa.int64()), values, mask=pa.array(missing)
    )
