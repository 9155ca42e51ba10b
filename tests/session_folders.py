"""Folders that live as long as the process of the tests, for what is built once."""

from __future__ import annotations

import atexit
import tempfile
from contextlib import ExitStack
from pathlib import Path

from feature_store.temporary_folders import temporary_folder


def session_folder(label: str) -> Path:
    """Make a folder that is removed at the end of this process; what a killed one left goes a day
    later."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(temporary_folder(Path(tempfile.gettempdir()), label))
