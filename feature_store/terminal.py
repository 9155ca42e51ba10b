"""Prepares standard output of a command for terminals that are not UTF-8."""

from __future__ import annotations

import io
import sys


def escape_unencodable() -> None:
    """Write what stdout cannot encode as escapes, as stderr does, instead of raising: a command
    that did its work must not fail for a character in its report."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
