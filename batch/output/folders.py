"""Opens an output folder, of this machine or by URL."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from batch.output.folder import Folder
from batch.output.remote_folder import RemoteFolder
from batch.remote import is_remote


class AnyFolder(Protocol):
    """What a run needs of its output: see ``Folder``."""

    @property
    def path(self) -> Path: ...
    def names(self) -> set[str]: ...
    def read(self, name: str) -> bytes | None: ...
    def put(self, name: str, data: bytes | Iterable[bytes]) -> None: ...
    def remove(self, name: str) -> None: ...
    def sweep(self) -> None: ...
    def locked(self) -> AbstractContextManager[None]: ...


def folder_of(place: str) -> AnyFolder:
    """Open a folder, which need not exist yet."""
    return RemoteFolder(place) if is_remote(place) else Folder(Path(place))
