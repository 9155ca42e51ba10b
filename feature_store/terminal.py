"""Prepares the output of commands for terminals."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from feature_store.wording import worded


def escape_unencodable() -> None:
    """Write what stdout cannot encode as escapes, as stderr does, instead of raising: a command
    that did its work must not fail for a character in its report."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def output_said() -> Iterator[None]:
    """Say in one line that stdout takes no more, as where its file's disk is full, and exit with
    code 1. What is left is dropped: the interpreter would try it again at its end."""
    try:
        yield
    except OSError as error:
        with suppress(OSError), Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        print(f"error: stdout: {printable(worded(error))}", file=sys.stderr)
        sys.exit(1)


def printable(message: str) -> str:
    """Escape what a terminal could take for a command, but for line ends: messages have names and
    values of files, which anyone may have written."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
