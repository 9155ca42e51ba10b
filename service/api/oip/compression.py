"""gzip and deflate of whole bodies, in and out. The body limit holds for the inflated request, too.

An answer is compressed for a client that names one coding only, or refuses the identity. A list of
codings is what libraries send by default: float32 scores hardly shrink, and compressing them costs
more than sending them. (Plain is always allowed: RFC 9110, 12.5.3.)
"""

from __future__ import annotations

import re
import zlib

from starlette.requests import Request

from service.api.body import read_body
from service.context import RequestContext
from service.errors import Malformed, TooLarge, UnsupportedEncoding

PLAIN = "identity"
# zlib's own numbers for its container and for gzip's; the raw stream some call deflate is neither.
WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
FASTEST = 1
WEIGHT = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


async def read_inflated(
    ctx: RequestContext, request: Request, limit: int, deadline: float
) -> bytes:
    """The body as it was before Content-Encoding: at most ``limit`` bytes, as it came and after.

    DeadlinePassed when it is not here by ``deadline`` (``perf_counter``).
    """
    encoding = (ctx.header(b"content-encoding") or "").strip().lower() or PLAIN
    if encoding != PLAIN and encoding not in WINDOW:
        raise UnsupportedEncoding(f"Content-Encoding: {' or '.join(WINDOW)}, one of them, once")
    body = await read_body(ctx, request, limit, deadline, encoded=True)
    if encoding == PLAIN:
        return body
    ctx.inflated = limit  # unless it can be inflated
    inflated = inflate(body, encoding, limit)
    ctx.inflated = len(inflated)
    return inflated


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    stream = zlib.decompressobj(WINDOW[encoding])
    try:
        inflated = stream.decompress(body, limit + 1)  # bounds memory
    except zlib.error as error:
        raise Malformed(f"body: not {encoding}") from error
    if len(inflated) > limit:
        raise TooLarge(
            f"the body is larger than {limit} bytes when it is inflated",
            members={"limit_bytes": limit},
        )
    if not stream.eof or stream.unused_data:
        what = "goes on behind its end" if stream.eof else "breaks off"
        raise Malformed(f"body: {encoding} that {what}")
    return inflated


def deflate(body: bytes, encoding: str) -> bytes:
    stream = zlib.compressobj(FASTEST, wbits=WINDOW[encoding])
    return stream.compress(body) + stream.flush()


def wanted_encoding(accepted: str | None) -> str:
    """Choose the answer's coding by the Accept-Encoding header."""
    if accepted is None:
        return PLAIN
    weights = _weights(accepted)
    asked = [coding for coding in weights if coding in WINDOW and weights[coding] > 0]
    if len(weights) == 1 or weights.get(PLAIN, weights.get("*", 1.0)) == 0:
        return max(asked, key=weights.__getitem__, default=PLAIN)
    return PLAIN


def _weights(accepted: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        coding, _, parameter = entry.partition(";")
        weight = WEIGHT.fullmatch(parameter.strip())
        if coding.strip():
            found[coding.strip()] = float(weight[1]) if weight else 1.0
    return found
