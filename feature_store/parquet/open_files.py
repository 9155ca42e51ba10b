"""Makes room for the files of a folder with many parts, each of which stays open."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from feature_store.parquet.columns import DataFileError

SPARE = 64  # for connections and files that are opened later


def make_room(path: Path, files: int) -> None:
    """Raise this process's soft limit on open files, if need be. DataFileError if the hard one has
    no room for so many more."""
    needed = _open_now() + files + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise DataFileError(
            f"{path}: has {files} parts, and this process may open {hard} files: raise the limit "
            "(ulimit -Hn, LimitNOFILE of systemd), or write fewer parts"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
