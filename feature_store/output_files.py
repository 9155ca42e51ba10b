"""Files that a command writes for its user, who may name a device such as ``/dev/null``."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def is_device(path: Path) -> bool:
    """Whether ``path`` is a device, a pipe or a socket: no file may take its place."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def discard(path: Path) -> None:
    """Remove a file of an earlier command. A device stays; so does a link, whose file is emptied.
    OSError."""
    if is_device(path):
        return
    if path.is_symlink() and path.exists():
        os.truncate(path, 0)
    elif not path.is_symlink():
        path.unlink(missing_ok=True)
