"""Writes a parquet file so that it is complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def whole_file(path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of ``path``, whose file gets its name when all of it is written; a link stays
    one."""
    path = path.resolve()
    partial = path.with_name(path.name + ".partial")
    try:
        with pq.ParquetWriter(partial, columns, write_page_checksum=True) as writer:
            yield writer
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
