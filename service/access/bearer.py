"""Checks ``Authorization: Bearer …`` against known tokens, in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256


class BearerTokens:
    """Named tokens. A name may have several, for rotation."""

    def __init__(self, named: Iterable[tuple[str, str]]) -> None:
        """``named``: pairs of name and token."""
        self._digests = [(name, sha256(token.encode()).digest()) for name, token in named]

    def __bool__(self) -> bool:
        return bool(self._digests)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._digests))

    def name_of(self, authorization: bytes) -> str | None:
        """Return the name of the header's token, in a time that depends on no token."""
        scheme, _, given = authorization.partition(b" ")
        digest, found = sha256(given.strip(b" ")).digest(), None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name
        return found if scheme.lower() == b"bearer" else None
