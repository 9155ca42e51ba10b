"""Measures resident memory of a run above the table: ``python -m tests.batch.measure_memory``.

Generates rows in one row group, users in random order, and samples all processes of the run.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from tests.batch.command import line, manifest
from tests.service.world import World, make_world

BAR_MB = 1500.0
EVERY_S = 0.2
WRITTEN_AT_ONCE = 1_000_000


def generate(world: World, path: Path, rows: int, users: int) -> Path:
    """Write ``rows`` rows of random users and items, in one row group."""
    random = np.random.default_rng(1)
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("note", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(
            pa.table(
                {
                    "user_id": random.integers(0, users, rows),
                    "item_id": random.choice(world.ids, rows),
                    "note": np.arange(rows),
                },
                schema=schema,
            ),
            row_group_size=rows,
        )
    return path


def with_one_list(world: World, path: Path, longest: int) -> Path:
    """Write 100 lists of 10 items, one of which has ``longest``."""
    lengths = np.full(100, 10)
    lengths[1] = longest
    items = np.random.default_rng(1).choice(world.ids, lengths.sum())
    starts = np.concatenate([[0], np.cumsum(lengths)])
    lists = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(items))
    pq.write_table(pa.table({"user_id": np.arange(100), "item_ids": lists}), path)
    return path


def resident(pid: int) -> tuple[float, float]:
    """MB of a process and its children: without and of shared memory (the table)."""
    own = shared = 0
    with suppress(psutil.Error, OSError):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error, OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                fields = dict(row.split(":", 1) for row in status.splitlines() if ":" in row)
                own += sum(_kb(fields, name) for name in ("RssAnon", "RssFile"))
                shared = max(shared, _kb(fields, "RssShmem"))
    return own / 1024, shared / 1024


def _kb(fields: dict[str, str], name: str) -> int:
    """Of a process that has ended there is none."""
    return int(fields.get(name, "0").split()[0])


def sampled(command: list[str]) -> Iterator[tuple[float, float]]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        yield resident(process.pid)
        time.sleep(EVERY_S)
    assert process.returncode == 0, process.returncode


def highest(command: list[str], code: int = 0) -> int:
    """Bytes: the sum of the highest resident memory that each process of a run has had."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    found: dict[int, int] = {}
    while process.poll() is None:
        with suppress(psutil.Error, OSError):
            parent = psutil.Process(process.pid)
            for each in (parent, *parent.children(recursive=True)):
                with suppress(psutil.Error, OSError):
                    status = Path(f"/proc/{each.pid}/status").read_text()
                    fields = dict(row.split(":", 1) for row in status.splitlines() if ":" in row)
                    found[each.pid] = max(found.get(each.pid, 0), _kb(fields, "VmHWM") * 1024)
        time.sleep(0.02)
    assert process.returncode == code, process.returncode
    return sum(found.values())


def main(
    rows: Annotated[list[int] | None, typer.Option(help="Rows of an input; repeat.")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    longest: Annotated[
        list[int] | None, typer.Option(help="Instead: candidates of one list; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure inputs of 2 and 20 million rows against the bar of 1,500 MB; or lists that are
    rejected for their length, in one process that reads and one that scores."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), users=1000)
        found = []
        for count in longest or []:
            source = with_one_list(world, Path(folder) / f"{count}.parquet", count)
            output = Path(folder) / f"lists-{count}"
            options = ("--workers", "1", "--max-rejects", "1")
            highest_mb = highest(line(world, source, output, *options), code=3) / 1e6
            typer.echo(orjson.dumps({"longest": count, "peak_mb": round(highest_mb, 1)}).decode())
        if longest:
            return
        for count in rows or [2_000_000, 20_000_000]:
            source = generate(world, Path(folder) / f"{count}.parquet", count, count // 100)
            output = Path(folder) / f"out-{count}"
            command = line(world, source, output, "--workers", str(workers), "--keep", "note")
            began = time.perf_counter()
            peaks = np.max(list(sampled(command)), axis=0)
            seconds = time.perf_counter() - began
            assert sum(part["rows"][1] - part["rows"][0] for part in manifest(output)["parts"])
            found.append(
                {
                    "rows": count,
                    "workers": workers,
                    "seconds": round(seconds, 1),
                    "peak_mb": round(float(peaks[0]), 1),
                    "table_mb": round(float(peaks[1]), 1),
                    "bar_mb": BAR_MB,
                    "met": bool(peaks[0] <= BAR_MB),
                }
            )
            source.unlink()
    if as_json:
        print(orjson.dumps(found).decode())
    for each in [] if as_json else found:
        print(f"{each['rows']:>12,} rows: {each['peak_mb']:,.0f} MB, {each['seconds']:,.0f} s")
    raise typer.Exit(not all(each["met"] for each in found))


if __name__ == "__main__":
    typer.run(main)
