"""Reads and validates request bodies; errors are 4xx that name the field."""

from __future__ import annotations

import asyncio
import codecs
import json
import math
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request

from service.api.ids import has_text
from service.api.score_models import ScoreRequest
from service.context import RequestContext
from service.errors import (
    MOST_FAULTS,
    ClientGone,
    DeadlinePassed,
    Fault,
    InvalidField,
    InvalidHeader,
    Malformed,
    TooLarge,
    UnsupportedEncoding,
)

DIGITS_A_VALUE = 20  # more than any integer of 63 bits has
SPARE_DIGITS = 32_768  # for names and strings, which may be all escapes
DIGITS = b"0123456789"
SHORT = 16_384  # bytes: empty lists, as many as that holds, take little time
NUMBERS = frozenset({int, float})
HOLD_STRINGS = frozenset({str, list, dict})
OBJECT = TypeAdapter(dict[str, Any])
BOM = codecs.BOM_UTF8  # some writers begin with it; RFC 8259 lets a parser ignore it
DEADLINE_HEADER = "X-Deadline-Ms"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Contents:
    """Bounds on what a valid JSON body of a route can hold.

    Counted before parsing, because parsing and above all reporting faults take time in proportion
    to the number of values.
    """

    values: int  # one comma follows each, but for the last of its list or object
    quotes: int  # two a name and two a string
    digits: int  # a number of thousands costs their square
    lists: int  # and objects: nested ones need no comma
    ids: int = 0  # that may be strings, of two quotation marks each

    @classmethod
    def of(
        cls,
        values: int,
        quotes: int,
        digits_a_value: int = DIGITS_A_VALUE,
        *,
        lists: int | None = None,
        ids: int = 0,
    ) -> Contents:
        """``lists``: by default as many as quotation marks, since each has a name, or holds one."""
        values += quotes  # a name's value may be a number as well
        lists = quotes if lists is None else lists
        return cls(values, quotes, values * digits_a_value + SPARE_DIGITS, lists, ids)

    def check(self, body: bytes) -> None:
        """Raise InvalidField when it holds more."""
        quotes = body.count(b'"')
        if quotes > self.quotes and (
            quotes > self.quotes + 2 * self.ids or body.count(b":") > self.quotes
        ):
            raise InvalidField.of("body", detail="more names than any valid request has")
        if self._many_lists(body) and self._many_lists(_outside_strings(body)):
            detail = "more lists and objects than any valid request has"
            raise InvalidField.of("body", detail=detail)
        if len(body) <= self.values:  # so are its commas
            return
        if body.count(b",") > self.values:
            raise InvalidField.of("body", detail="more values than any valid request has")
        if len(body) > self.digits:
            digits = len(body) - len(body.translate(None, DIGITS))
            if digits > self.digits:
                raise InvalidField.of("body", detail="more digits than any valid request has")

    def _many_lists(self, body: bytes) -> bool:
        """Tell whether more lists and objects end than are valid, those within strings included.

        The parser itself stops at too many that are open at a time.
        """
        return len(body) > SHORT and body.count(b"]") + body.count(b"}") > self.lists


class TextContents(Contents):
    """Bounds for bodies whose ids are texts, which may hold commas, digits and escapes: these are
    not counted within strings."""

    def check(self, body: bytes) -> None:
        """Raise InvalidField when it holds more."""
        quotes = self.quotes + 2 * self.ids
        few = body.count(b'"') <= quotes and len(body) <= self.digits
        few = few and not self._many_lists(body)
        if few and (len(body) <= self.values or body.count(b",") <= self.values):
            return
        body = _without_escapes(body)
        if body.count(b'"') > quotes:
            raise InvalidField.of("body", detail="more strings than any valid request has")
        super().check(_outside_strings(body))


def _without_escapes(body: bytes) -> bytes:
    """JSON without escaped backslashes and quotation marks."""
    return body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body


def _quotes(body: bytes) -> int:
    """Count the quotation marks that are not escaped."""
    if b"\\\\" in body:
        return _without_escapes(body).count(b'"')
    return body.count(b'"') - body.count(b'\\"')


def _outside_strings(body: bytes) -> bytes:
    return b"".join(_without_escapes(body).split(b'"')[::2])


def body_at_hand(ctx: RequestContext, limit: int) -> bytes | None:
    """Return the body, if all of it is here and it is not encoded, as is usual. TooLarge."""
    if ctx.connection is None or b"content-encoding" in ctx.headers:
        return None
    body = ctx.connection.whole_body()
    if body is not None and len(body) > limit:
        raise TooLarge.beyond(limit)
    return body


async def read_body(
    ctx: RequestContext,
    request: Request,
    limit: int,
    deadline: float = math.inf,
    *,
    encoded: bool = False,
) -> bytes:
    """Read the whole body, at most ``limit`` bytes. TooLarge as soon as there are more.

    DeadlinePassed when it is not here by ``deadline`` (``perf_counter``). ``encoded``: the caller
    undoes its Content-Encoding.
    """
    if (body := body_at_hand(ctx, limit)) is not None:
        return body
    encoding = ctx.headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity" and not encoded:
        raise UnsupportedEncoding("send the body as it is, without Content-Encoding")
    announced = ctx.headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise TooLarge.beyond(limit)
    left = deadline - perf_counter()
    try:
        async with asyncio.timeout(None if left == math.inf else left):
            return await _read(request, limit)
    except ClientDisconnect as error:
        raise ClientGone("the client went away before its request was whole") from error
    except TimeoutError as error:
        raise DeadlinePassed(
            "the body did not arrive before the deadline", headers={"Connection": "close"}
        ) from error


async def _read(request: Request, limit: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge.beyond(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def parse(
    model: type[ScoreRequest],
    body: bytes,
    contents: Contents,
    with_text: type[ScoreRequest] | None = None,
) -> ScoreRequest:
    """Parse and check a body: as ``with_text`` if some of its ids are strings, else as ``model``.
    Malformed or InvalidField name the place."""
    contents.check(body)
    body = body.removeprefix(BOM)
    try:
        request = model.model_validate_json(body)
    except ValidationError as error:
        if with_text is None or not has_text(error):
            _refuse(error)
        request = validate(with_text, body)
    _refuse_duplicate_names(request, body)
    return request


def validate(model: type[M], body: bytes) -> M:
    """Validate JSON. The caller checks ``Contents`` and repeated names."""
    try:
        return model.model_validate_json(body.removeprefix(BOM))
    except ValidationError as error:
        _refuse(error)


def validate_members(model: type[M], members: dict[str, Any]) -> M:
    """Validate the members of an object that has been parsed."""
    try:
        return model.model_validate(members)
    except ValidationError as error:
        _refuse(error)


def parse_object(body: bytes, contents: Contents) -> dict[str, Any]:
    """Parse a JSON object without repeated names. Its members are checked later."""
    found = read_object(body, contents)
    refuse_repeated(body, strings_in(found))
    return found


def read_object(body: bytes, contents: Contents) -> dict[str, Any]:
    """Parse a JSON object; see ``refuse_repeated``."""
    contents.check(body)
    try:
        return OBJECT.validate_json(body.removeprefix(BOM))
    except ValidationError as error:
        _refuse(error)


def refuse_repeated(body: bytes, strings: int) -> None:
    """Raise InvalidField if a name is repeated in this valid JSON, which parsed to so many strings.

    Each string has two quotation marks; more of them, escaped ones aside, mean a repeated name.
    """
    if body.count(b'"') != 2 * strings and _quotes(body) != 2 * strings:
        read_unique(body)


def strings_in(value: Any) -> int:
    """Number of names and string values, at any depth."""
    match value:
        case str():
            return 1
        case dict():
            return len(value) + sum(strings_in(member) for member in value.values())
        case list():
            if HOLD_STRINGS.isdisjoint(map(type, value)):
                return 0
            return sum(strings_in(each) for each in value if type(each) in HOLD_STRINGS)
    return 0


def deadline_seconds(ctx: RequestContext, default_ms: float, longest_ms: float) -> float:
    """Seconds that the answer may take, by X-Deadline-Ms or the default."""
    given = ctx.headers.get(b"x-deadline-ms")
    if given is None:
        return default_ms / 1e3
    try:
        milliseconds = float(given)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds <= longest_ms:
        raise InvalidHeader.of(
            DEADLINE_HEADER, detail=f"a number of milliseconds above 0, at most {longest_ms:g}"
        )
    return milliseconds / 1e3


def _refuse(error: ValidationError) -> NoReturn:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        fault = Fault.at((), found[0]["msg"])  # with line and column
        raise Malformed(f"{fault.field}: {fault.detail}", faults=[fault])
    faults = [Fault.at(e["loc"], e["msg"]) for e in found[:MOST_FAULTS]]
    detail = f"{faults[0].field}: {faults[0].detail}"
    if len(found) > 1:
        detail += f" (and {len(found) - 1} more)"
    raise InvalidField(detail, faults=faults)


def _refuse_duplicate_names(request: ScoreRequest, body: bytes) -> None:
    """Refuse a name given twice, which would silently win over the first.

    A valid body has two quotation marks a name, two more for ``model_version``'s value and for
    each text id, and none elsewhere, so counting them finds every repetition; only then, or if ids
    that may be numbers are strings, is the body read once more.
    """
    strings = len(request.model_fields_set) + len(request.context) + len(request.features)
    strings += request.model_version is not None
    if request.ids_are_texts:
        strings += 1 + len(request.candidates) + len(request.history or ())
    refuse_repeated(body, strings)


def read_unique(body: bytes) -> None:
    """Raise InvalidField if a name is given twice anywhere in this valid JSON."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, times in counts.items() if times > 1)
            raise InvalidField.of(twice, detail="given more than once")
        return seen

    json.loads(body, object_pairs_hook=unique)
