"""Proves that what an earlier run has left is as it was written: JSON and files with digests."""

from __future__ import annotations

from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import orjson

CONTENT, DIGEST = "content", "sha256"


def sealed(content: Any) -> bytes:
    """Return JSON of the content and its digest."""
    return orjson.dumps({CONTENT: content, DIGEST: _digest(content)})


def unsealed(path: Path) -> Any:
    """Return the content of a file; None if it is not there, or not as it was written."""
    try:
        found = orjson.loads(path.read_bytes())
        content = found[CONTENT]
        return content if found[DIGEST] == _digest(content) else None
    except (FileNotFoundError, KeyError, TypeError, orjson.JSONDecodeError):
        return None


def digest_of_file(path: Path) -> str | None:
    """Return the digest of a file's bytes; None if it is not there."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _digest(content: Any) -> str:
    return sha256(orjson.dumps(content)).hexdigest()
