"""The client's retry policy: a generator without a socket, which both clients drive.

A request is retried only if the service refused it (429, 503) or the connection broke, if it may be
repeated, and if there is time before its deadline.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from time import monotonic

import orjson

RETRIED = frozenset({429, 503})  # refused before any work
FIRST_PAUSE_S = 0.02  # doubled each time; refusals have Retry-After


class ClientError(Exception):
    """Base of the client's errors."""


class Refused(ClientError):
    """The service refused: HTTP ``status``, its ``detail``, ``retry_after`` in seconds.

    A redirection (3xx) is one, too: nothing was carried out.
    """

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail, self.retry_after = status, detail, retry_after


class Unreachable(ClientError):
    """No answer. A call that is not safe to repeat may have been carried out."""


class Late(ClientError):
    """No answer before the deadline."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``safe``: may be sent twice (idempotent)."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    safe: bool


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send, and wait ``seconds`` for the answer."""

    call: Call
    headers: Mapping[str, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """No reply. ``sent``: the service may have received the request."""

    reason: str
    sent: bool


Steps = Generator[Send | Pause, Reply | Broken | None, Reply]


def retry(call: Call, seconds: float, retries: int) -> Steps:
    """Yield steps, receive their outcomes; return the successful reply or raise ClientError."""
    ends, pause = monotonic() + seconds, FIRST_PAUSE_S
    for left_over in range(retries, -1, -1):
        left = ends - monotonic()
        deadline = {"X-Deadline-Ms": f"{max(1e3 * left, 0.001):.3f}"}
        outcome = yield Send(call, {**call.headers, **deadline}, max(left, 0.001))
        if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
            return outcome
        assert outcome is not None
        again, wait = _again(call, outcome, pause)
        if monotonic() >= ends:
            raise Late(f"{call.path}: no answer within {1e3 * seconds:g} ms") from _error(outcome)
        if not again or not left_over or monotonic() + wait >= ends:
            raise _error(outcome)
        yield Pause(wait)
        pause *= 2
    raise AssertionError("unreachable")


def _again(call: Call, outcome: Reply | Broken, pause: float) -> tuple[bool, float]:
    """Whether to retry, and after how many seconds."""
    if isinstance(outcome, Broken):
        return call.safe or not outcome.sent, pause * random.uniform(0.5, 1)
    wait = _retry_after(outcome)
    return call.safe and outcome.status in RETRIED, pause if wait is None else wait


def _retry_after(reply: Reply) -> float | None:
    given = reply.headers.get("retry-after", "")
    return float(given) if given.isdecimal() and len(given) < 10 else None


def _error(outcome: Reply | Broken) -> ClientError:
    if isinstance(outcome, Broken):
        return Unreachable(outcome.reason)
    if outcome.status == 504:
        return Late(_detail(outcome))
    return Refused(outcome.status, _detail(outcome), _retry_after(outcome))


def _detail(reply: Reply) -> str:
    """``error`` of the protocol's answers, ``detail`` of problem documents."""
    if reply.status < 400:  # of a proxy: the service redirects nothing
        to = reply.headers.get("location")
        return f"no answer of the service; redirected to {to!r}" if to else "no final answer"
    try:
        content = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        content = None
    if isinstance(content, dict):
        return str(content.get("error") or content.get("detail") or "no reason given")
    return beginning(reply)


def beginning(reply: Reply) -> str:
    """The body's beginning, in one line: a page of a proxy has several."""
    return " ".join(reply.body[:200].decode("utf-8", "replace").split())
