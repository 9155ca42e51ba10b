"""How a command ends where something fails; ``test_output_files.py`` has a full stdout."""

from __future__ import annotations

import subprocess
import sys

RESET = """
import errno
from feature_store.terminal import run

def app():
    raise OSError(errno.ECONNRESET, "Connection reset by peer")

run(app)
"""


def test_a_failure_that_is_not_of_stdout_is_not_called_so() -> None:
    done = subprocess.run([sys.executable, "-c", RESET], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "stdout" not in done.stderr
    assert done.stderr.endswith("ConnectionResetError: [Errno 104] Connection reset by peer\n")
