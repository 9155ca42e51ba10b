"""An answer in one piece whose headers are as they are sent: nothing is made of them any more."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Receive, Scope, Send

RawHeaders = Iterable[tuple[bytes, bytes]]  # names in lower case


class RawResponse:
    """200. Starlette's ``Response`` would encode its headers for every answer."""

    __slots__ = ("body", "headers")

    def __init__(self, body: bytes, headers: RawHeaders) -> None:
        """``headers``: all but the length."""
        self.body, self.headers = body, [*headers, (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})
