"""How fast items are loaded: ``python -m tests.feature_store.bench_load [--json]``.

Items of 128 fp16 numbers, 5 tags and two levels, in two parquet files as the challenge has them,
loaded by ``python -m feature_store load`` into an empty LMDB folder and an empty local Redis, by
turns. Reading the files is in the time that the command tells.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from feature_store.schema import FeatureSchema
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.redis_servers import standalone
from tests.feature_store.samples import random_rows

BARS = {"lmdb": 100_000, "redis": 40_000}  # items per second


def make_files(folder: Path, count: int) -> list[str]:
    """The options that name them."""
    schema = FeatureSchema.microlens()
    rows = random_rows(schema, count)
    rows[schema.identity] = np.arange(1, count + 1)
    columns = item_columns(schema, rows[schema.identity].astype(np.int64), rows)
    info = write(folder / "item_info.parquet", {k: v for k, v in columns.items() if "emb" not in k})
    wide = {k: v for k, v in columns.items() if "emb" in k or k == schema.identity}
    feature = write(folder / "item_feature.parquet", wide)
    written = folder / "schema.yaml"
    written.write_text(schema.to_yaml())
    return ["--schema", str(written), "--items", str(info), "--items", str(feature)]


def rate(url: str, options: list[str], folder: Path) -> float:
    """Items per second."""
    command = [sys.executable, "-m", "feature_store", "load", url, *options, "--json"]
    command += ["--rejects", str(folder / "rejected.jsonl")]
    told = orjson.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert told["rejected"] == 0
    return float(told["items"] / told["seconds"])


def measured(count: int, rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {kind: [] for kind in BARS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = make_files(folder, count)
        for number in range(rounds):
            rates["lmdb"].append(rate(f"lmdb://{folder / f'store-{number}'}", options, folder))
            with standalone(folder / f"redis-{number}") as server:
                url = f"redis://127.0.0.1:{server.port}"
                rates["redis"].append(rate(url, options, folder))
    median = {kind: float(np.median(found)) for kind, found in rates.items()}
    return {
        "items": count,
        "items_per_second": {kind: [round(r) for r in found] for kind, found in rates.items()},
        "median": {kind: round(m) for kind, m in median.items()},
        "within": all(median[kind] >= bar for kind, bar in BARS.items()),
    }


def main(
    items: Annotated[int, typer.Option(help="How many.")] = 200_000,
    rounds: Annotated[int, typer.Option(help="Loads into each.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when the median misses its bar: 100,000 items/s into LMDB, 40,000 into Redis."""
    found = measured(items, rounds)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:20} {v}" for k, v in found.items()))
    raise typer.Exit(int(not found["within"]))


if __name__ == "__main__":
    typer.run(main)
