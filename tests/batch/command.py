"""``python -m batch`` as its users run it: a process, or within this one where no worker starts."""

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
from tests.logs import configure, restored
from tests.service.world import World


def line(world: World, source: Path, output: Path, *options: str) -> list[str]:
    """The command line of a run."""
    return [
        *(sys.executable, "-m", "batch", "score", "--bundle", str(world.models)),
        *("--store", world.store, "--input", str(source), "--output", str(output), *options),
    ]


def score(
    world: World, source: Path, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        line(world, source, output, *options), capture_output=True, text=True, timeout=240
    )


def here(world: World, source: Path | str, output: Path, *options: str) -> tuple[int, str, str]:
    """Run it in this process, where it ends before workers start: exit code, stdout, stderr."""
    words = line(world, Path(source), output, *options)[3:]
    words[words.index("--input") + 1] = str(source)
    with restored(), patch.object(command, "configure", configure):
        done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def scored(world: World, source: Path, output: Path, *options: str, code: int = 0) -> pa.Table:
    """Run it, and read what it has written."""
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
