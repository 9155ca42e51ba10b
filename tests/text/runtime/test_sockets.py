"""The runtime opens no socket and imports no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

for name in ("socket", "create_connection", "getaddrinfo", "socketpair"):
    setattr(socket, name, refuse)
for name in ("torch", "onnx", "pandas"):
    sys.modules[name] = None
from text.runtime.encoder import TextEncoder
from text.runtime.verify import verify

verify(sys.argv[1])
assert TextEncoder.open(sys.argv[1]).encode(["the tree"]).vectors.shape[0] == 1
names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
         if os.path.islink(f"/proc/self/fd/{fd}")]
assert not [name for name in names if name.startswith("socket:")], names
"""


def test_a_bundle_is_verified_and_run_with_sockets_blocked(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundle)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
