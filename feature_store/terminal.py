"""Prepares the output of commands for terminals."""

from __future__ import annotations

import io
import sys


def escape_unencodable() -> None:
    """Write what stdout cannot encode as escapes, as stderr does, instead of raising: a command
    that did its work must not fail for a character in its report."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def printable(message: str) -> str:
    """Escape what a terminal could take for a command, but for line ends: messages have names and
    values of files, which anyone may have written."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
