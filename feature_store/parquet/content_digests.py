"""Reads and writes the digests of contents in tables of items: column ``FEATURE_digest``.

``text embed`` and ``export`` write it; a null is a vector that was given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from feature_store.contents import GIVEN, Contents, Digests, digest_number, digest_text
from feature_store.parquet.columns import DataFileError
from feature_store.schema import Dense, Stored


def digest_column(feature: str) -> str:
    """Return the column of a feature's digests."""
    return f"{feature}_digest"


def feature_with_digests(features: Sequence[Stored], columns: Sequence[str]) -> str | None:
    """Return the feature whose digests are among the columns. DataFileError for several."""
    found = [f.name for f in features if isinstance(f, Dense) and digest_column(f.name) in columns]
    if len(found) > 1:
        raise DataFileError(
            f"columns {' and '.join(map(digest_column, found))}: a store has contents of one "
            "feature; drop the others"
        )
    return found[0] if found else None


def read_digests(array: pa.Array, source: str) -> tuple[Digests, dict[int, str]]:
    """Read a column of digests; faults by row. DataFileError for another type."""
    found, faults = np.full(len(array), GIVEN, np.uint64), dict[int, str]()
    types, kind = pa.types, array.type
    if not any(is_of(kind) for is_of in (types.is_string, types.is_large_string, types.is_null)):
        raise DataFileError(f"{source}: holds {kind}, not digests of contents")
    for row, text in enumerate(array.to_pylist()):
        if text is not None:
            try:
                found[row] = digest_number(text)
            except ValueError as error:
                faults[row] = str(error)
    return found, faults


def written(contents: Contents | None, items: int, feature: str) -> pa.Array:
    """Return the column of the items' digests."""
    if contents is None or contents.feature != feature:
        return pa.nulls(items, pa.string())
    return pa.array([digest_text(number) for number in contents.row.tolist()], pa.string())
