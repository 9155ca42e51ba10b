"""Reads the state of a run, as torch.save wrote it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

DAMAGED = (
    *(zipfile.BadZipFile, UnpicklingError, EOFError),
    *(RuntimeError, LookupError, AttributeError, TypeError, ValueError),
)  # what reading a damaged file raises, torch.load nearly any


def load_state(path: Path) -> Any:
    """Read a file once its CRCs hold, which torch.load does not check: a flipped bit would be a
    number. Raises DAMAGED and OSError."""
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise zipfile.BadZipFile(f"{damaged}: its CRC differs")
    return torch.load(path, weights_only=True)
