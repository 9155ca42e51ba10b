"""Streams of HTTP/1.1 requests, right and wrong, and ways to cut them into segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

INNER = b"DELETE /inner HTTP/1.1\r\nHost: a\r\n\r\n"  # as a body: it must never become a request
BODIES = (b"", b"{}", b'{"user_id":1}', INNER, b"\r\n\r\n", b"0\r\n\r\n", b"x" * 700, INNER * 3)
METHODS = (b"GET", b"POST", b"POST", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"FOO")
TARGETS = (
    b"/",
    b"/v1/score",
    b"/a?b=c",
    b"/a%20b?x=%2F&y",
    b"//a//b",
    b"http://a/b?c",
    b"/a;b=c:d",
)
UPGRADES = (b"h2c", b"websocket", b"TLS/1.0", b"HTTP/2.0", b"foo, bar")
EXTRA = (
    (b"Accept", b"*/*"),
    (b"X-Empty", b""),
    (b"x-request-id", b"1"),
    (b"X-Deadline-Ms", b"50"),
    (b"Cookie", b"a=b; c=\xe4"),
    (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"),
    (b"Connection", b"keep-alive"),
    (b"X-Spaces", b"  a \t b  "),
    (b"Expect", b"100-continue"),
)
TRAILERS = ((b"X-Request-Id", b"t"), (b"X-Deadline-Ms", b"1"), (b"Digest", b"x=y"), (b"Host", b"b"))
EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b';a="b c"', b";;x")

WRONG_ENCODINGS = (
    b"gzip, chunked",
    b"chunked, chunked",
    b"gzip",
    b"identity",
    b"",
    b"chunked;q=1",
    b"xchunked",
    b"chunked,",
    b"\x0bchunked",
)
WRONG_LENGTHS = (b"x", b"", b"+2", b"-1", b"0x2", b"2 2", b"2,2", b"2, 3", b"1.0", b"\xb2")
WRONG_LINES = (
    b"Host : a",
    b" folded: a",
    b"\tfolded",
    b"no colon",
    b": no name",
    b"X: a\x00b",
    b"X: a\x0bb",
    b"X: a\rb",
    b"X: a\nY: b",
    b"X\x80: a",
    b"X(: a",
    b"Host: b",
    b"Content-Length: 3",
    b"Content-Length:3\r\nContent-Length: 3",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:\tchunked",
    b"Host: a b",
)
WRONG_STARTS = (
    b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    b"GET /\r\n",
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    b"GET / http/1.1\r\nHost: a\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    b"GET / HTTP/1.1\r\rHost: a\r\r",
    b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + INNER,
    b"CONNECT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n\r\n",
)


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes of a connection. ``valid``: nothing in them is to be refused."""

    data: bytes
    valid: bool


def stream(random: Random) -> Stream:
    """One to four messages, of which any may be wrong."""
    messages = [_message(random) for _ in range(random.randint(1, 4))]
    data, valid = b"".join(m.data for m in messages), all(m.valid for m in messages)
    if random.random() < 0.25:  # a byte changed, left out or put in, or broken off
        at = random.randrange(len(data))
        put = bytes([random.choice(b"\r\n\t :;,0aA\x00\x7f\xff")])
        cut = random.choice((0, 1, 1, len(data)))
        data, valid = data[:at] + random.choice((b"", put)) + data[at + cut :], False
    return Stream(data, valid)


def splits(random: Random, data: bytes) -> Iterator[list[bytes]]:
    """The same bytes in segments: sometimes at every boundary, otherwise in one random way."""
    kind = random.random()
    if kind < 0.03:
        yield from at_every_boundary(data)
    elif kind < 0.2:
        yield [data]
    elif kind < 0.3 and len(data) < 600:
        yield [data[at : at + 1] for at in range(len(data))]
    else:
        count = random.randint(1, 6)
        edges = sorted(random.randrange(len(data) + 1) for _ in range(count))
        pairs = zip([0, *edges], [*edges, len(data)], strict=True)
        yield [data[a:b] for a, b in pairs if a < b]


def at_every_boundary(data: bytes) -> Iterator[list[bytes]]:
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def _message(random: Random) -> Stream:
    if random.random() < 0.06:
        return Stream(random.choice(WRONG_STARTS), False)
    version, valid = (b"1.0" if random.random() < 0.04 else b"1.1"), True
    method, target = random.choice(METHODS), random.choice(TARGETS)
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host: a"]
    lines += [_line(random, *one) for one in random.sample(EXTRA, random.randint(0, 4))]
    if random.random() < 0.3:
        lines += [b"Connection: Upgrade", b"Upgrade: " + random.choice(UPGRADES)]
    if random.random() < 0.05:
        lines.append(b"Connection: %b" % random.choice((b"close", b"Keep-Alive, CLOSE")))
    body, framing = random.choice(BODIES), random.random()
    if framing < 0.4:
        lines.append(_line(random, b"Content-Length", b"%d" % len(body)))
    elif framing < 0.8 and version == b"1.1":
        lines.append(_line(random, b"Transfer-Encoding", random.choice((b"chunked", b"Chunked"))))
        body, valid = _chunked(random, body)
    else:
        body = b""
    if random.random() < 0.15:
        valid = False
        lines.insert(random.randint(1, len(lines)), _wrong_line(random))
    if random.random() < 0.02:
        valid = False
        lines.remove(b"Host: a")
    first, *headers = lines
    random.shuffle(headers)
    return Stream(b"\r\n".join([first, *headers, b"", body]), valid)


def _line(random: Random, name: bytes, value: bytes) -> bytes:
    name = random.choice((name, name.lower(), name.upper()))
    before, after = (
        random.choice((b" ", b" ", b"", b"\t", b"  ")),
        random.choice((b"", b"", b" \t")),
    )
    return b"%b:%b%b%b" % (name, before, value, after)


def _wrong_line(random: Random) -> bytes:
    kind = random.random()
    if kind < 0.25:
        return b"Transfer-Encoding: " + random.choice(WRONG_ENCODINGS)
    if kind < 0.5:
        return b"Content-Length: " + random.choice(WRONG_LENGTHS)
    return random.choice(WRONG_LINES)


def _chunked(random: Random, body: bytes) -> tuple[bytes, bool]:
    """The body in chunks, and whether they are as they should be."""
    parts, at = list[bytes](), 0
    while at < len(body):
        size = random.choice((1, 2, 16, 100, len(body)))
        piece = body[at : at + size]
        shape = random.choice((b"%x", b"%X", b"00%x"))
        parts.append(shape % len(piece) + random.choice(EXTENSIONS) + b"\r\n" + piece + b"\r\n")
        at += size
    parts.append(random.choice((b"0", b"000")) + random.choice(EXTENSIONS) + b"\r\n")
    if random.random() < 0.3:
        trailers = random.sample(TRAILERS, random.randint(1, 3))
        parts += [b"%b: %b\r\n" % one for one in trailers]
    parts.append(b"\r\n")
    if random.random() < 0.85:
        return b"".join(parts), True
    wrong = (
        b"g\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1 \r\nx\r\n",
        b"1\nx\r\n",
        b"2\r\nx\r\n",
        b"1\r\nxy\r\n",
    )
    more = (b"\r\n", b"fffffffffffffffff\r\n", b"1;a\rb\r\nx\r\n", b"1 ;a\r\nx\r\n", b" 1\r\nx\r\n")
    trailing = (
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
    )
    parts.insert(random.randrange(len(parts)), random.choice(wrong + more + trailing))
    return b"".join(parts), False
