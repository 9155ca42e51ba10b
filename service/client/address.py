"""The address of a service: a URL, and the credentials that were in it, which no message shows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class Address:
    """``http://HOST[:PORT][/PREFIX]``"""

    url: str  # without credentials
    headers: Mapping[str, str]  # HTTP Basic authentication, of USER:PASSWORD@ before the host

    @classmethod
    def parse(cls, name: str, url: str) -> Address:
        """``name`` is the argument's, for the ValueError."""
        at = _split(url)
        if at is None or at.scheme not in ("http", "https") or at.query or at.fragment:
            shown = url if "@" not in url else "one with an @, which is not shown"
            raise ValueError(
                f"{name}: must be http://HOST[:PORT][/PREFIX], got {shown!r}"
            ) from None
        given, at_sign, host = at.netloc.rpartition("@")
        path = quote(at.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        plain = urlunsplit((at.scheme, host, path, "", ""))
        if not at_sign:
            return cls(plain, {})
        user, _, password = given.partition(":")  # before unquoting: %3A is no separator
        basic = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        return cls(plain, {"Authorization": f"Basic {basic}"})


def _split(url: str) -> SplitResult | None:
    """None if it has no host, or is ambiguous: an @ behind the host may end a password with a ``/``
    in it, and must be %40 in a path."""
    try:
        at = urlsplit(url)
        (at.hostname or "").encode("idna")  # what no name server can be asked for
        return at if at.hostname and at.port != 0 and "@" not in at.path else None
    except ValueError:  # its message may have a part of the password
        return None
