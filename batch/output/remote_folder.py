"""An output folder in an object store, where a whole object appears at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pyarrow import fs

from batch.remote import address, filesystem_of


class RemoteFolder:
    """As ``Folder``, by URL. Two runs at a time are not refused: they write the same bytes."""

    def __init__(self, url: str) -> None:
        self._files, self._path = filesystem_of(url)
        self.path = address(url, self._path)

    def names(self) -> set[str]:
        """Return the names of all objects."""
        selected = fs.FileSelector(self._path, allow_not_found=True)
        return {info.base_name for info in self._files.get_file_info(selected) if info.is_file}

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes; None if there is none."""
        try:
            with self._files.open_input_file(f"{self._path}/{name}") as file:
                data: bytes = file.readall()
        except FileNotFoundError:
            return None
        return data

    def put(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Write an object. It appears when the stream is closed, or not at all."""
        with self._files.open_output_stream(f"{self._path}/{name}") as stream:
            for part in [data] if isinstance(data, bytes) else data:
                stream.write(part)

    def remove(self, name: str) -> None:
        self._files.delete_file(f"{self._path}/{name}")

    def sweep(self) -> None:
        """Nothing is ever half written."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Object stores have no locks."""
        yield
