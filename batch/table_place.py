"""Chooses the folder of the item table that the workers of a machine map together."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from batch.errors import BatchError
from feature_store.schema import FeatureSchema
from service.items.shared_file import SETTING, NotShared, check_shared, remove_unused
from service.items.table_layout import size_of
from service.lifecycle.load_steps import LEAST_ROOM, ROOM
from service.private_directory import NotPrivate

MEMORY = Path("/dev/shm")  # noqa: S108 — a private folder in it
SPARE = 1.1  # of the table's size
STARTING_S = 60.0  # a folder without a table that is younger may be of a run that begins


def check_table_folder(folder: Path) -> None:
    """Make the folder that is asked for. BatchError where tables cannot be shared in it."""
    try:
        check_shared(folder)
    except (NotShared, NotPrivate) as error:
        raise BatchError(str(error).replace(SETTING, "--table-folder")) from error


def table_place(output: str, schema: FeatureSchema, items: int) -> Path | None:
    """Return a private folder in memory for a run's table; None if there is no room in memory, or
    tables cannot be shared: then every worker has its own.

    Removes the tables that killed runs have left.
    """
    base = _base()
    needed = SPARE * size_of(schema, int(items * ROOM) + LEAST_ROOM)
    folder = base / blake2b(output.encode(), digest_size=8).hexdigest()
    try:
        _sweep(base)
        if shutil.disk_usage(base).free < needed:
            with suppress(OSError):  # others use it
                base.rmdir()
            return None
        check_shared(folder)
    except (NotShared, NotPrivate, OSError):
        return None
    return folder


def remove_table(folder: Path | None) -> None:
    """Remove the folder, and the one of all runs if it was the last, unless a process still maps a
    table in it."""
    if folder is not None and folder.parent == _base():
        with suppress(OSError):
            remove_unused(folder)
            _remove_if_unused(folder)
            folder.parent.rmdir()


def worker_table(folder: Path | None) -> Path | None:
    """Return the folder, made on this machine, or None where tables cannot be shared."""
    if folder is None:
        return None
    try:
        if folder.parent == _base():
            _sweep(folder.parent)
        check_shared(folder)
    except (NotShared, NotPrivate, OSError):
        return None
    return folder


def _base() -> Path:
    """The folder of all runs of this user."""
    return MEMORY / f"qin-batch-{os.geteuid()}"


def _sweep(base: Path) -> None:
    """Make the folder, without what killed runs have left in it. NotShared, NotPrivate, OSError."""
    check_shared(base)
    for left in base.iterdir():
        with suppress(OSError):
            remove_unused(left)
            if time.time() - left.stat().st_mtime > STARTING_S:
                _remove_if_unused(left)


def _remove_if_unused(folder: Path) -> None:
    if any(folder.glob("*.table")):
        return
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    folder.rmdir()
