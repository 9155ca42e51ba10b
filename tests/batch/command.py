"""``python -m batch`` within this process, with workers that are forked; or as its users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from batch.__main__ import app
from batch.cli import app as command
from tests.batch.workers import forked
from tests.logs import configure, restored
from tests.service.world import World


def line(world: World, source: Path | str, output: Path | str, *options: str) -> list[str]:
    """The command line of a run."""
    return [
        *(sys.executable, "-m", "batch", "score", "--bundle", str(world.models)),
        *("--store", world.store, "--input", str(source), "--output", str(output), *options),
    ]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m batch`` to its end, in this process and with forked workers."""
    with restored(), patch.object(command, "configure", configure), forked():
        done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def score(
    world: World, source: Path | str, output: Path | str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end here: see ``run``."""
    return run(*line(world, source, output, *options)[3:])


def score_apart(
    world: World, source: Path, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in a process and with workers of its own."""
    return subprocess.run(
        line(world, source, output, *options), capture_output=True, text=True, timeout=240
    )


def scored(world: World, source: Path, output: Path, *options: str, code: int = 0) -> pa.Table:
    """Run it here, and read what it has written."""
    done = score(world, source, output, *options)
    assert done.returncode == code, done.stderr
    return read(output)


def read(output: Path) -> pa.Table:
    """The parts, in the order of their names."""
    return pa.concat_tables(
        [pq.read_table(path) for path in parts(output)], promote_options="default"
    )


def parts(output: Path) -> list[Path]:
    return sorted(output.glob("part-*.parquet"))


def manifest(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((output / "_manifest.json").read_bytes())
    return found
