"""Standard output of a command, which may be a full disk's file or a closed pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batch.output.folder import naming


@contextmanager
def stdout() -> Iterator[None]:
    """Write out what the block prints. OSError names ``stdout`` if that fails.

    What is left then is dropped: the interpreter would try it again at its end, and exit with 120.
    """
    try:
        with naming("stdout"):
            yield
            sys.stdout.flush()
    except OSError:
        with suppress(OSError), Path(os.devnull).open("w") as nothing:  # or a stand-in of tests
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        raise
