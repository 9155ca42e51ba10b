"""Prepares the output of commands for terminals."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# What writing to a file that is open may say, without its name.
UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF, errno.EAGAIN)
}


def run(app: Callable[[], object]) -> None:
    """Run a command; end with one line where an argument is not UTF-8, as paths of parquet files
    and graphs must be, or where stdout cannot be written, as on a full disk.
    """
    if sys.stdout is None:  # closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    escape_unencodable()
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = "a URL" if "://" in argument else ascii(argument)  # it may have a password
            _end(f"{shown} is not UTF-8; rename the file or folder", 2)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is None and error.errno not in UNWRITABLE:
            raise  # not of a file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (what is left would fail again)
        _end(f"{error.filename or 'stdout'}: {error.strerror or error}", 1)


def _end(message: str, code: int) -> NoReturn:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def escape_unencodable() -> None:
    """Write what stdout cannot encode as escapes, as stderr does, instead of raising: a command
    that did its work must not fail for a character in its report."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def printable(message: str) -> str:
    """Escape what a terminal could take for a command, but for line ends: messages have names and
    values of files, which anyone may have written."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
