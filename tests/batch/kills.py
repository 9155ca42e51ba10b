"""Runs that are killed at a moment by chance, of progress rather than of time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.batch.command import parts

WITHIN_S = 300.0


def killed_after(
    command: Sequence[str], output: Path, files: int, environment: Mapping[str, str] | None = None
) -> bool:
    """Run until so many files were added to the output, then kill -9; False: it had ended."""
    before = count(output)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        until = time.monotonic() + WITHIN_S
        while process.poll() is None and count(output) < before + files:
            assert time.monotonic() < until
            time.sleep(0.01)
        ended = process.poll() is not None
    finally:
        process.kill()
        process.wait()
    return not ended


def count(output: Path) -> int:
    with suppress(FileNotFoundError):  # a file that is renamed meanwhile
        return sum(1 for _ in output.rglob("*"))
    return 0


def forget_some(output: Path) -> None:
    """Let a complete output have something left to do."""
    manifest = output / "_manifest.json"
    if manifest.exists():
        for path in (*parts(output)[::3], manifest):
            path.unlink()
