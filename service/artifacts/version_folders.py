"""Lists the bundles' folders in a folder of them."""

from __future__ import annotations

import os
import re
from heapq import nlargest
from itertools import islice
from pathlib import Path

from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import VERSION_PATTERN

MOST_ENTRIES = 100_000  # of the folder that are read, in directory order


def version_folders(path: Path, most: int) -> list[Path]:
    """Return the folders named as versions are, the last ``most`` by name, ascending.

    Raises FileNotFoundError or NotADirectoryError, and BundleError where it cannot be read. Blocks.
    """
    try:
        with os.scandir(path) as entries:
            names = nlargest(
                most,
                (
                    entry.name
                    for entry in islice(entries, MOST_ENTRIES)
                    if re.fullmatch(VERSION_PATTERN, entry.name) and _is_folder(entry)
                ),
            )
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read: {error.strerror}; let uid {os.geteuid()} read it"
        ) from error
    return [path / name for name in sorted(names)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one, which is then refused with a message."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, or no permission
        return False
