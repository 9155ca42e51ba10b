"""Finds out whether files of an input change while they are read: size and time of change of each.

A run is of the files that are there when it begins; what appears later is no part of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from batch.inputs.remote_tables import objects_of, stamps_of_objects
from batch.inputs.request_log import is_log
from batch.job import Stamp, Stamps
from batch.remote import is_remote
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.table import files_of


def stamps_of(source: str) -> Stamps:
    """Find the files of an input, in their order, and what each is now. DataFileError."""
    if is_log(source) and not is_remote(source):
        return stamps_now(source, [Path(source)])
    found = objects_of(source) if is_remote(source) else files_of(Path(source))
    return stamps_now(source, found)


def stamps_now(source: str, files: Sequence[Path]) -> Stamps:
    """Return what these files of an input are now."""
    if is_remote(source):
        return stamps_of_objects(source, files)
    found: dict[Path, Stamp] = dict.fromkeys(files)
    for path in files:
        with suppress(OSError):
            stat = os.stat(path)
            found[path] = stat.st_size, stat.st_mtime_ns
    return found


def refuse_changes(before: Stamps, now: Stamps, *, times: bool = True) -> None:
    """DataFileError names the first file of ``now`` that is another one than ``before``.

    ``times``: also by the time of change, which copies on several machines may not share.
    """
    for path, stamp in now.items():
        known = before.get(path)
        if stamp is None or known is None or stamp[: 1 + times] != known[: 1 + times]:
            what = "is gone" if stamp is None else "was written to"
            raise DataFileError(
                f"{path}: {what} during the run, whose input must not change; start again with "
                "another --output"
            )
