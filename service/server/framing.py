"""Splits the bytes of a connection into HTTP/1.1 requests (RFC 9112), strictly.

The only judge of where a message ends: ``Content-Length`` or ``Transfer-Encoding: chunked``, and no
other header, ``Upgrade`` included. What two parsers might read differently is refused, and after a
refusal no further byte is parsed: bare CR or LF, folded headers, whitespace before a colon,
``Content-Length`` twice or with ``Transfer-Encoding``. Trailers are checked and dropped.

    RequestHead   method, target, headers, and how the body is framed
    Framing       fed with segments, calls its ``Receiver``; raises the ServiceError of a refusal
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.errors import HeadersTooLarge, NotHttp, TooLarge, UnsupportedTransferEncoding

Header = tuple[bytes, bytes]  # name in lower case, value without outer whitespace

# Possessive quantifiers throughout: a hostile head costs what its length does, not its square.
TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]"
TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # of a header's value
REQUEST_LINE = re.compile(rb"(%b{1,32}+) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" % TOKEN)
FIELD = re.compile(rb"^(%b++):[ \t]*+(%b*+)\r\n" % (TOKEN, TEXT), re.MULTILINE)
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16}+)(;%b*+)?+\r\n" % TEXT)
BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")  # half an end of line
TARGET = re.compile(rb"(?:(?i:https?)://([^/?#]+))?+(/[^?#]*+)?+(?:\?([^#]*+))?+")
HOST = re.compile(rb"[-A-Za-z0-9._~!$&'()*+,;=%:\[\]]*+")
AUTHORITY = re.compile(  # RFC 3986, without a user (RFC 9110, 4.2.4)
    rb"(?:\[[0-9A-Fa-f:.]++\]|(?:[-A-Za-z0-9._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})++)(?::[0-9]*+)?+"
)

LONGEST_LENGTH = 18  # digits; a longer number is beyond any limit
# Each chunk costs a microsecond, so a body in chunks of a byte would hold everything up. A larger
# number than this takes an average size.
FREE_PIECES, SMALL_PIECE = 512, 64  # bytes


@dataclass(slots=True)
class RequestHead:
    """A request line and its headers."""

    method: str
    authority: bytes | None  # where the target has the absolute form
    path: bytes  # as sent: not decoded
    query: bytes
    version: str  # 1.0 or 1.1
    headers: list[Header]
    length: int | None  # of the body; None: chunked
    keep_alive: bool
    expects_continue: bool


class FramingLimits(Protocol):
    """The limits of ``service.server.connections.ConnectionLimits`` that framing needs."""

    @property
    def header_bytes(self) -> int: ...
    @property
    def headers(self) -> int: ...
    @property
    def body_bytes(self) -> int: ...


class Receiver(Protocol):
    """Called with each part of a message, in order."""

    discards: bool  # nothing more is to be parsed

    def on_request(self, head: RequestHead) -> None: ...
    def on_body(self, piece: bytes) -> None: ...
    def on_complete(self) -> None: ...


class Framing:
    """The framing of one connection, message after message."""

    __slots__ = ("_extensions", "_left", "_limits", "_partial", "_pieces", "_size", "_step")

    def __init__(self, limits: FramingLimits) -> None:
        self._limits = limits
        self._step: Step = _head  # a function: a bound method would be a reference to itself
        self._partial = bytearray()  # of a head, a chunk's line or trailers
        self._left = 0  # bytes of the body, or of the chunk
        self._size = self._pieces = self._extensions = 0  # of the body so far

    @property
    def begun(self) -> bool:
        """Whether part of a head is here."""
        return self._step is _head and len(self._partial) > 0

    @property
    def in_body(self) -> bool:
        """Whether a head is here and the end of its message is not."""
        return self._step is not _head

    @property
    def body_bytes(self) -> int:
        """Bytes of the unfinished body so far."""
        return self._size

    def feed(self, data: bytes, receiver: Receiver) -> bool:
        """Parse a segment. True: bytes are left because ``receiver`` discards. ServiceError."""
        at, end = 0, len(data)
        while at < end:
            if receiver.discards:
                return True
            at = self._step(self, data, at, receiver)
        return False

    def _block(self, mark: bytes, data: bytes, at: int, most: int) -> tuple[bytes | None, int]:
        """Bytes up to and with ``mark``, once they are here, and where they end in ``data``."""
        partial = self._partial
        if not partial and (found := data.find(mark, at)) >= 0:
            found += len(mark)
            if found - at > most:
                raise self._headers_too_large()
            return data[at:found], found
        before = len(partial)
        partial += data[at : at + most + 1 - before]
        found = partial.find(mark, max(0, before + 1 - len(mark)))
        if found < 0:
            if len(partial) > most:
                raise self._headers_too_large()
            return None, len(data)
        found += len(mark)
        if found > most:
            raise self._headers_too_large()
        block = bytes(partial[:found])
        partial.clear()
        return block, at + found - before

    def _add(self, count: int, pieces: int = 1) -> None:
        """Count bytes of the body. TooLarge."""
        self._size += count
        self._pieces += pieces
        if self._size > self._limits.body_bytes:
            raise TooLarge.beyond(self._limits.body_bytes)
        if self._pieces > FREE_PIECES + self._size // SMALL_PIECE:
            raise TooLarge("the body comes in too many small chunks")

    def _complete(self, receiver: Receiver) -> None:
        self._step = _head
        self._size = self._pieces = self._extensions = 0
        receiver.on_complete()

    def _headers_too_large(self) -> HeadersTooLarge:
        limits = self._limits
        return HeadersTooLarge(
            f"request line and headers take more than {limits.header_bytes} bytes, or there are "
            f"more than {limits.headers} headers",
            members={"limit_bytes": limits.header_bytes, "limit_headers": limits.headers},
        )


# Steps: each parses some of ``data`` from ``at`` and returns where it stopped.
Step = Callable[[Framing, bytes, int, Receiver], int]


def _head(framing: Framing, data: bytes, at: int, receiver: Receiver) -> int:
    before = len(framing._partial)
    block, at = framing._block(b"\r\n\r\n", data, at, framing._limits.header_bytes)
    if block is None:
        _look_early(framing._partial, before)
        return at
    head = parse_head(block)
    if len(head.headers) > framing._limits.headers:
        raise framing._headers_too_large()
    framing._left = head.length or 0
    framing._step = _chunks if head.length is None else _body
    receiver.on_request(head)
    if head.length == 0:
        framing._complete(receiver)
    return at


def _look_early(partial: bytearray, before: int) -> None:
    """Refuse what can be no request any more without waiting for the rest. NotHttp."""
    if BARE.search(partial, max(0, before - 1)):
        raise NotHttp("a line ends with CR or LF alone, not with both")
    end = partial.find(b"\n")
    if end >= before or (not before and not re.match(TOKEN, partial)):
        _request_line(partial)


def _body(framing: Framing, data: bytes, at: int, receiver: Receiver) -> int:
    piece = data[at : at + framing._left]
    framing._add(len(piece))
    framing._left -= len(piece)
    receiver.on_body(piece)
    if not framing._left:
        framing._complete(receiver)
    return at + len(piece)


def _chunks(framing: Framing, data: bytes, at: int, receiver: Receiver) -> int:
    """As many chunks as are here, given on in one piece."""
    pieces, end, count = [], len(data), 0
    try:
        while at < end:
            if not framing._left:
                line, at = framing._block(b"\r\n", data, at, framing._limits.header_bytes)
                if line is None:
                    break
                size = _chunk_size(framing, line)
                if not size:
                    framing._step = _trailers
                    framing._partial += b"\r\n"  # so that trailers end like a head, without any too
                    break
                framing._add(size)
                count += 1
                framing._left = size + 2
            if framing._left > 2:
                piece = data[at : at + framing._left - 2]
                pieces.append(piece)
                framing._left -= len(piece)
                at += len(piece)
            while at < end and 0 < framing._left <= 2:
                if data[at] != b"\r\n"[-framing._left]:
                    raise NotHttp("a chunk is longer than its size says")
                framing._left -= 1
                at += 1
        if not count and pieces:
            framing._add(0)  # a chunk in many segments
    finally:
        if pieces:
            receiver.on_body(b"".join(pieces))
    return at


def _chunk_size(framing: Framing, line: bytes) -> int:
    found = CHUNK.fullmatch(line)
    if found is None:
        raise NotHttp("a chunk does not begin with its size in hexadecimal digits")
    framing._extensions += len(line) - len(found[1]) - 2
    if framing._extensions > framing._limits.header_bytes:
        raise framing._headers_too_large()
    return int(found[1], 16)


def _trailers(framing: Framing, data: bytes, at: int, receiver: Receiver) -> int:
    block, at = framing._block(b"\r\n\r\n", data, at, framing._limits.header_bytes)
    if block is not None:
        headers = _fields(block, 2)
        if len(headers) > framing._limits.headers:
            raise framing._headers_too_large()
        body_length(headers, dict(headers))
        framing._complete(receiver)
    return at


def parse_head(block: bytes) -> RequestHead:
    """Parse a head, its empty line included. NotHttp, UnsupportedTransferEncoding."""
    method, target, minor, start = _request_line(block)
    headers = _fields(block, start)
    given = dict(headers)
    modern = minor == b"1"
    length = body_length(headers, given)
    if length is None and not modern:
        raise NotHttp("Transfer-Encoding: not in HTTP/1.0")
    host = given.get(b"host")
    if host is None:
        if modern:
            raise NotHttp("Host: missing")
    elif HOST.fullmatch(host) is None:
        raise NotHttp("Host: not a host name with or without a port")
    authority, path, query = _target(method, target)
    keep_alive = modern
    if b"connection" in given:
        keep_alive = modern and not _says_close(headers)
    expects = modern and given.get(b"expect", b"").lower() == b"100-continue"
    return RequestHead(
        method.decode(),
        authority,
        path,
        query,
        "1.1" if modern else "1.0",
        headers,
        length,
        keep_alive,
        expects,
    )


def _request_line(block: bytes | bytearray) -> tuple[bytes, bytes, bytes, int]:
    found = REQUEST_LINE.match(block)
    if found is None:
        raise NotHttp("what was sent does not begin with an HTTP/1.1 request line")
    method, target, minor = found.groups()
    return method, target, minor, found.end()


def _fields(block: bytes, start: int) -> list[Header]:
    """The header lines from ``start`` on. Each LF of ``block`` ends one of them, the line before
    ``start`` or the empty line: so none was passed over."""
    found: list[Header] = FIELD.findall(block, start)
    if len(found) + 2 != block.count(b"\n"):
        raise NotHttp("a header line is not `name: value`")
    return [(name.lower(), value.rstrip(b" \t")) for name, value in found]


def body_length(headers: list[Header], given: dict[bytes, bytes]) -> int | None:
    """Bytes of the body; None: in chunks. ``given`` are the headers by name."""
    if len(given) < len(headers):
        _refuse_repeated(headers)
    length, encoding = given.get(b"content-length"), given.get(b"transfer-encoding")
    if encoding is not None:
        if encoding.lower() != b"chunked":
            raise UnsupportedTransferEncoding("Transfer-Encoding: only chunked is understood")
        if length is not None:
            raise NotHttp("Content-Length: not allowed with Transfer-Encoding")
        return None
    if length is None:
        return 0
    if not length.isdigit():
        raise NotHttp("Content-Length: not a number of bytes")
    return int(length) if len(length) <= LONGEST_LENGTH else int("9" * LONGEST_LENGTH)


def _refuse_repeated(headers: list[Header]) -> None:
    names = [name for name, _ in headers]
    if names.count(b"transfer-encoding") > 1:
        raise UnsupportedTransferEncoding("Transfer-Encoding: given more than once")
    for name in (b"host", b"content-length"):
        if names.count(name) > 1:
            raise NotHttp(f"{name.decode().title()}: given more than once")


def _says_close(headers: list[Header]) -> bool:
    tokens = b",".join(value for name, value in headers if name == b"connection").lower()
    return any(token.strip(b" \t") == b"close" for token in tokens.split(b","))


def _target(method: bytes, target: bytes) -> tuple[bytes | None, bytes, bytes]:
    """Authority, path and query. NotHttp."""
    found = TARGET.fullmatch(target)
    if method == b"CONNECT" or found is None:
        if (method, target) == (b"OPTIONS", b"*"):
            return None, b"*", b""
        raise NotHttp("the request target is neither a path nor an http URL")
    authority, path, query = found.groups()
    if authority is not None and AUTHORITY.fullmatch(authority) is None:
        raise NotHttp("the request target names no host with or without a port")
    if path is None:
        if authority is None:
            raise NotHttp("the request target is neither a path nor an http URL")
        path = b"/"
    return authority, path, query or b""
