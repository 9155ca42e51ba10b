"""Validates ids: non-negative 63-bit integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feature_store.contract import MAX_ID, Ids


def checked_id(value: int, what: str) -> int:
    """Return the id. Raises ValueError if it is not a non-negative 63-bit integer."""
    number = int(value)
    if not 0 <= number <= MAX_ID:
        raise ValueError(f"{what} {number} is not in 0 … 2⁶³−1")
    return number


def checked_ids(values: Sequence[int] | Ids, what: str) -> Ids:
    """Return the ids as (N,) int64. ValueError names the first invalid one."""
    if not isinstance(values, np.ndarray):
        return np.array([checked_id(value, what) for value in values], np.int64)
    if values.dtype.kind not in "iu":
        raise ValueError(f"{what}: {values.dtype} values are not integer ids")
    outside = (values < 0) | (values > MAX_ID)
    if outside.any():
        raise ValueError(f"{what} {values[outside][0]} is not in 0 … 2⁶³−1")
    return values.astype(np.int64, copy=False)
