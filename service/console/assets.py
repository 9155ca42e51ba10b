"""The console's scripts and styles, in memory; their addresses change with their content."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"


class Asset(NamedTuple):
    content: bytes
    media_type: str


class Assets:
    """All files of ``static`` and ``vendor`` by address: name and digest."""

    def __init__(self) -> None:
        self._found: dict[str, Asset] = {}
        self._addresses: dict[str, str] = {}
        for path in sorted([*ROOT.glob("static/*"), *ROOT.glob("vendor/*/*")]):
            media_type = TYPES.get(path.suffix)
            if media_type is None:  # a licence, a note
                continue
            content = path.read_bytes()
            address = f"{sha256(content).hexdigest()[:12]}/{path.name}"
            self._found[address] = Asset(content, media_type)
            self._addresses[path.name] = f"/console/assets/{address}"

    def address(self, name: str) -> str:
        """Return the path of a file, for templates. KeyError names a missing one."""
        return self._addresses[name]

    def find(self, address: str) -> Asset | None:
        return self._found.get(address)
