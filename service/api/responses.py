"""A response whose headers are already encoded."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Receive, Scope, Send

RawHeaders = Iterable[tuple[bytes, bytes]]  # names in lower case


class RawResponse:
    """200 with a whole body. Starlette's ``Response`` would encode the headers for every answer."""

    __slots__ = ("body", "headers")

    def __init__(self, body: bytes, headers: RawHeaders) -> None:
        """``headers``: all but the length."""
        self.body, self.headers = body, [*headers, (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})
