"""A folder that is mounted read-only for one command, in a namespace of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED)


def read_only(folder: Path | str) -> tuple[str, ...]:
    """Return the words before a command that is to find ``folder`` read-only; skip the test where
    the system permits no such mount."""
    words = (*IN_A_NAMESPACE, str(folder))
    tried = subprocess.run([*words, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a namespace with a mount is not permitted here: {tried.stderr.strip()}")
    return words
