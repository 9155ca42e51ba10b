"""Bodies of the binary-data extension: JSON, then the tensors' bytes in the order declared.

Used by the service and by its client alike, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import InvalidField, InvalidHeader

LENGTH_HEADER = "Inference-Header-Content-Length"
BINARY, JSON = "application/octet-stream", "application/json"


def json_length(length: str | None, size: int) -> int:
    """How many bytes of a body of ``size`` are JSON; without the header it is all of them."""
    if length is None:
        return size
    if not (length.isascii() and length.isdecimal() and len(length) < 20):
        raise InvalidHeader.of(LENGTH_HEADER, detail="one number of bytes")
    if int(length) > size:
        raise InvalidHeader.of(LENGTH_HEADER, detail=f"{length} bytes of a body that has {size}")
    return int(length)


class Blobs:
    """What follows the JSON: handed out in order, all of it, and nothing beyond its end."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes, start: int) -> None:
        self._body, self._at = body, start

    def take(self, name: str, size: int) -> int:
        """Where in the body the next ``size`` bytes are."""
        start, left = self._at, len(self._body) - self._at
        if size > left:
            raise InvalidField.of(
                "inputs", name, detail=f"binary_data_size is {size}, but {left} bytes are left"
            )
        self._at += size
        return start

    def end(self) -> None:
        """InvalidField if anything is left over."""
        if left := len(self._body) - self._at:
            raise InvalidField.of("body", detail=f"{left} bytes behind the last tensor")


def join(header: bytes, blobs: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """The body, and the headers that say what it is."""
    if not blobs:
        return header, {"Content-Type": JSON}
    headers = {"Content-Type": BINARY, LENGTH_HEADER: str(len(header))}
    return b"".join([header, *blobs]), headers
