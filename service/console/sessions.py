"""Signs the console's sessions: cookies that hold who logged in, from where, and until when.

A session is bound to the token it was begun with, to the client's address and to a key that all
workers of a service share; it ends with any of them. The cookie holds no secret.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from time import time

import orjson

COOKIE = "qin_console"


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in."""

    name: str  # of the token
    began: float  # seconds since the epoch
    until: float
    nonce: str  # tells it from others
    csrf: str  # to be sent with every command


class Sessions:
    """Begins sessions and reads their cookies."""

    def __init__(self, key: bytes, named: Iterable[tuple[str, str]], seconds: float) -> None:
        """``named``: pairs of name and token; ``seconds``: how long a session lasts."""
        self._key, self._seconds = key, seconds
        self._tokens = [(name, sha256(token.encode()).digest()) for name, token in named]

    def begin(self, token: str, *bound: str) -> tuple[str, Session] | None:
        """Return cookie and session; None if the token is not known. Takes the same time.

        ``bound``: what the session is bound to, the client's address and the cookie's name.
        """
        given, found = sha256(token.encode()).digest(), None
        for name, known in self._tokens:
            if hmac.compare_digest(given, known):
                found = name
        if found is None:
            return None
        now, nonce = time(), secrets.token_urlsafe(16)
        content: list[str | float] = [found, now, now + self._seconds, nonce]
        text = urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=").decode()
        cookie = f"{text}.{self._signature(text, given, bound)}"
        return cookie, self._session(content)

    def read(self, cookie: str, *bound: str) -> Session | None:
        """Return the session of a cookie; None if it is forged, over or from elsewhere."""
        text, _, signature = cookie.partition(".")
        if not cookie.isascii() or not any(
            hmac.compare_digest(signature, self._signature(text, token, bound))
            for _, token in self._tokens
        ):
            return None
        content = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))  # as it was signed
        session = self._session(content)
        return session if session.until > time() else None

    def csrf(self, nonce: str) -> str:
        """Derive the token that a page sends with its commands."""
        return hmac.new(self._key, b"csrf\0" + nonce.encode(), sha256).hexdigest()

    def _session(self, content: list[str | float]) -> Session:
        name, began, until, nonce = content
        return Session(str(name), float(began), float(until), str(nonce), self.csrf(str(nonce)))

    def _signature(self, text: str, token: bytes, bound: tuple[str, ...]) -> str:
        """Of each token its own: a cookie of a token that was taken away has none."""
        signed = b"\0".join((b"session", token, *(one.encode() for one in bound), text.encode()))
        return hmac.new(self._key, signed, sha256).hexdigest()
