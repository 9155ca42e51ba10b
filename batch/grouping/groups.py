"""Groups the rows of a bucket into requests: one user's, of one time and with equal features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.inputs.long_lists import too_long
from batch.inputs.requests import Requests
from batch.job import Columns
from model_export.bundle.vectors import Positions


def grouped(records: NDArray[np.void], columns: Columns) -> tuple[Requests, Positions]:
    """Return the requests of these rows, and the row (E,) that each candidate came from.

    Candidates of a request are in the order of their rows.
    """
    keys = keys_of(records, columns)
    order = np.lexsort((records["row"], *reversed(keys)))
    records = records[order]
    begins = np.ones(len(records), np.bool_)
    if len(records):
        begins[1:] = False
        for key in keys:
            begins[1:] |= key[order][1:] != key[order][:-1]
    first = np.flatnonzero(begins)
    starts = np.append(first, len(records))
    requests = Requests(
        np.ascontiguousarray(records["user"][first]),
        starts,
        np.ascontiguousarray(records["item"]),
        {
            name: np.ascontiguousarray(records[f"c_{number}"])
            for number, name in enumerate(columns.context)
        },
        {name: records[f"f_{number}"][first] for number, name in enumerate(columns.features)},
        records["time"][first] if columns.time is not None else None,
    )
    return requests, records["row"].copy()


def keys_of(records: NDArray[np.void], columns: Columns) -> list[NDArray[np.int64]]:
    """Return what rows (N,) of one request have in common: user, time, request features."""
    names = ["user"] + ["time"] * (columns.time is not None)
    names += [f"f_{number}" for number in range(len(columns.features))]
    return [_comparable(records[name]) for name in names]


def limited(requests: Requests, column: str, most: int) -> Requests:
    """Return the requests, those of more than ``most`` candidates with a fault."""
    lengths = np.diff(requests.starts)
    long = np.flatnonzero(lengths > most).tolist()
    faults = {g: (column, too_long(int(lengths[g]), most)) for g in long}
    return replace(requests, faults={**requests.faults, **faults})


def _comparable(values: NDArray[Any]) -> NDArray[np.int64]:
    """As integers that are equal where the values are; all NaN are one value."""
    if values.dtype != np.float64:
        return values.astype(np.int64)
    whole = np.where(np.isnan(values), np.nan, values + 0.0)  # −0.0 is 0.0
    return whole.view(np.int64)
