"""Parameters of a request: supported, refused, and ignored ones, whose names are returned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.api.body import deadline_seconds
from service.api.oip.checks import SIZE
from service.api.oip.message import InferRequest
from service.api.oip.outputs import BINARY, BINARY_ALL
from service.context import RequestContext
from service.errors import InvalidField
from service.settings import Settings

TIMEOUT, PRIORITY = "timeout", "priority"
OF_REQUEST = frozenset({TIMEOUT, PRIORITY, BINARY_ALL})
SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
MOST_NAMES, MOST_LETTERS = 16, 64  # that are repeated


def timeout_us(message: InferRequest) -> int:
    """``timeout``, in microseconds; 0: not given."""
    return _whole_number(message, TIMEOUT)


def is_batch(message: InferRequest) -> bool:
    """Whether ``priority`` is 2 or more; 1 is the highest, 0 the default."""
    return _whole_number(message, PRIORITY) > 1


def seconds_allowed(microseconds: int, ctx: RequestContext, settings: Settings) -> float:
    """How long the answer may take: the shorter of ``timeout`` (at most the longest deadline) and
    X-Deadline-Ms, or the default."""
    if not microseconds:
        return deadline_seconds(ctx, settings.deadline_ms, settings.max_deadline_ms)
    milliseconds = min(microseconds, settings.max_deadline_ms * 1e3) / 1e3
    asked = deadline_seconds(ctx, milliseconds, settings.max_deadline_ms)
    return min(asked, milliseconds / 1e3)


def refuse_sequences(message: InferRequest) -> None:
    """Refuse sequences: a client that relies on state between requests would get wrong answers."""
    for name in SEQUENCES:
        if message.given().get(name):
            raise InvalidField.of("parameters", name, detail="there are no sequences here")


def ignored(message: InferRequest) -> list[str]:
    """Names of ignored members and parameters, each once."""
    found = dict.fromkeys(name[:MOST_LETTERS] for name in _unknown(message))
    return list(found)[:MOST_NAMES]


def _unknown(message: InferRequest) -> Iterator[str]:
    yield from message.unknown
    yield from (name for name in message.given() if name not in OF_REQUEST)
    for tensor in message.inputs:
        yield from tensor.unknown
        yield from (name for name in tensor.parameters or {} if name != SIZE)
    for output in message.outputs or ():
        yield from output.unknown
        yield from (name for name in output.parameters or {} if name != BINARY)


def _whole_number(message: InferRequest, name: str) -> int:
    value: Any = message.given().get(name, 0)
    if type(value) is not int or value < 0:
        raise InvalidField.of("parameters", name, detail="a whole number, 0 or more")
    return value
