"""``Authorization: Bearer …``, held against tokens that are known."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256


class BearerTokens:
    """Named secrets. A name may have several, so that they can be rotated."""

    def __init__(self, named: Iterable[tuple[str, str]]) -> None:
        """(name, token) of each."""
        self._digests = [(name, sha256(token.encode()).digest()) for name, token in named]

    def __bool__(self) -> bool:
        return bool(self._digests)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._digests))

    def name_of(self, authorization: bytes) -> str | None:
        """Whose token the header's value holds; the time it takes depends on no token."""
        scheme, _, given = authorization.partition(b" ")
        digest, found = sha256(given.strip(b" ")).digest(), None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name
        return found if scheme.lower() == b"bearer" else None
