"""Bodies of the binary-data extension: JSON, then the tensors' bytes in the order declared."""

from __future__ import annotations

from service.errors import InvalidHeader

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
