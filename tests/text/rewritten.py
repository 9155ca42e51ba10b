"""Corpora whose tables a test changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq


def rewrite(folder: Path, table: str, rows: pa.Table) -> None:
    """Put other rows into a table of a corpus, and their digest into ``corpus.json``."""
    path, about = folder / f"{table}.parquet", folder / "corpus.json"
    pq.write_table(rows, path)
    described = orjson.loads(about.read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    described["tables"][table] = {"rows": len(rows), "bytes": path.stat().st_size, "sha256": digest}
    about.write_bytes(orjson.dumps(described))
