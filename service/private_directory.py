"""Creates and checks directories that belong to this user alone.

Their content is trusted, so no other user may be able to write to them: the owner is this user, the
mode is 0700, and the path is no symbolic link. A missing directory is created; the mode of an
existing one is narrowed, unless it is shared by all users, as /tmp is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE = 0o700
OF_PARENTS = 0o755  # that are missing
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotPrivate(OSError):
    """The directory cannot be made private. The message names the remedy."""


def make_private(path: Path, setting: str) -> None:
    """Create the directory, or check that an existing one is private. NotPrivate, OSError.

    ``setting`` is the variable that names it, for messages.
    """
    os.close(open_private(path, setting))


def open_private(path: Path, setting: str) -> int:
    """Like ``make_private``, and return a descriptor of the directory, for ``dir_fd=``.

    Files opened through the descriptor are in the checked directory, even if its path has been
    replaced since.
    """
    path = path.absolute()
    try:
        for missing in reversed([parent for parent in path.parents if not parent.exists()]):
            missing.mkdir(OF_PARENTS, exist_ok=True)
        try:
            path.mkdir(PRIVATE)
        except FileExistsError:
            _check_kind(path, setting)
        directory = os.open(path, OPEN)
    except NotPrivate:
        raise
    except OSError as error:
        raise NotPrivate(
            f"{setting}: {path}: {error.strerror}; name a directory that this process may make "
            f"and write to (it runs as uid {os.geteuid()})"
        ) from error
    try:
        _narrow(directory, path, setting)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _check_kind(path: Path, setting: str) -> None:
    """Give the reason if the path is no directory: opening it would only fail."""
    kind = path.lstat().st_mode
    if stat.S_ISLNK(kind):
        raise NotPrivate(
            f"{setting}: {path} is a symbolic link; name the directory itself: {path.resolve()}"
        )
    if not stat.S_ISDIR(kind):
        raise NotPrivate(f"{setting}: {path} is not a directory; name one, or remove that file")


def _narrow(directory: int, path: Path, setting: str) -> None:
    """Set mode 0700 on a directory of this user. NotPrivate for any other owner."""
    found, mine = os.fstat(directory), os.geteuid()
    if found.st_uid != mine:
        raise NotPrivate(
            f"{setting}: {path} belongs to uid {found.st_uid}, and this process runs as uid "
            f"{mine}; name a directory that this process makes itself, such as {path}/qin, or "
            f"run: chown {mine} {path}"
        )
    if stat.S_IMODE(found.st_mode) & 0o777 == PRIVATE:
        return
    if found.st_mode & stat.S_ISVTX and found.st_mode & stat.S_IWOTH:  # such as /tmp
        raise NotPrivate(
            f"{setting}: {path} is shared by all users (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"name a directory of its own, such as {path}/qin"
        )
    try:
        os.fchmod(directory, PRIVATE)
    except OSError as error:
        raise NotPrivate(
            f"{setting}: {path} is open to other users (mode {found.st_mode & 0o777:04o}) and "
            f"cannot be narrowed: {error.strerror}; chmod 0700 {path}, or name another directory"
        ) from error
    if os.fstat(directory).st_mode & 0o777 != PRIVATE:  # file systems without modes
        raise NotPrivate(
            f"{setting}: {path}: its file system does not keep mode 0700; name a directory on one "
            "that does"
        )
