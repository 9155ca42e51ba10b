"""How fast items are loaded: ``python -m tests.feature_store.bench_load [--json]``.

Items of 128 fp16 numbers, 5 tags and two levels, in two parquet files as the challenge has them,
loaded by ``python -m feature_store load`` into an empty LMDB folder and an empty local Redis, by
turns. Reading the files is in the time that the command tells. ``--ids numeric --ids mapped`` loads
them under integers and under UUIDs as texts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa
import typer

from feature_store.schema import FeatureSchema
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.redis_servers import standalone
from tests.feature_store.samples import random_rows

BARS = {"lmdb": 100_000, "redis": 40_000}  # items per second, of numeric ids
TEXT = "uuid"  # the column of text ids


def make_files(folder: Path, count: int) -> dict[str, list[str]]:
    """The options that name them, per kind of ids."""
    schema = FeatureSchema.microlens()
    rows = random_rows(schema, count)
    rows[schema.identity] = np.arange(1, count + 1)
    columns = item_columns(schema, rows[schema.identity].astype(np.int64), rows)
    random = np.random.default_rng(1)
    columns[TEXT] = pa.array([str(UUID(bytes=random.bytes(16))) for _ in range(count)])
    info = write(folder / "item_info.parquet", {k: v for k, v in columns.items() if "emb" not in k})
    wide = {k: v for k, v in columns.items() if "emb" in k or k in (schema.identity, TEXT)}
    feature = write(folder / "item_feature.parquet", wide)
    written = folder / "schema.yaml"
    written.write_text(schema.to_yaml())
    options = ["--schema", str(written), "--items", str(info), "--items", str(feature)]
    return {"numeric": options, "mapped": [*options, "--ids", "mapped", "--id-column", TEXT]}


def rate(url: str, options: list[str], folder: Path) -> float:
    """Items per second."""
    command = [sys.executable, "-m", "feature_store", "load", url, *options, "--json"]
    command += ["--rejects", str(folder / "rejected.jsonl")]
    told = orjson.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["rejected"] == 0
    return float(told["items"] / told["seconds"])


def measured(
    count: int, rounds: int, stores: Sequence[str], kinds: Sequence[str]
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = make_files(folder, count)
        for number, store, kind in product(range(rounds), stores, kinds):
            place = folder / f"{store}-{kind}-{number}"
            found = rates.setdefault(store if kind == "numeric" else f"{store}, {kind}", [])
            if store == "lmdb":
                found.append(rate(f"lmdb://{place}", options[kind], folder))
                shutil.rmtree(place)
                continue
            with standalone(place) as server:
                url = f"redis://127.0.0.1:{server.port}"
                found.append(rate(url, options[kind], folder))
    median = {name: float(np.median(found)) for name, found in rates.items()}
    return {
        "items": count,
        "items_per_second": {name: [round(r) for r in found] for name, found in rates.items()},
        "median": {name: round(m) for name, m in median.items()},
        "within": all(median[name] >= bar for name, bar in BARS.items() if name in median),
    }


def main(
    items: Annotated[int, typer.Option(help="How many.")] = 200_000,
    rounds: Annotated[int, typer.Option(help="Loads into each.")] = 3,
    stores: Annotated[list[str] | None, typer.Option("--store", help="lmdb, redis; both.")] = None,
    ids: Annotated[list[str] | None, typer.Option(help="numeric (by default), mapped.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when the median misses its bar: 100,000 items/s into LMDB, 40,000 into Redis."""
    found = measured(items, rounds, stores or list(BARS), ids or ["numeric"])
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:20} {v}" for k, v in found.items()))
    raise typer.Exit(int(not found["within"]))


if __name__ == "__main__":
    typer.run(main)
