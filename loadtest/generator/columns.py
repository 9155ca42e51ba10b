"""Shared-memory table of a run: one preallocated row per scheduled request.

The parent creates the file, generators fill their own rows, and the parent reads them during the
run (live progress costs the generators nothing) and after it.

Four clocks, seconds from the start of the run:

    at ──lag──▶ attended ──connect──▶ sent ──service──▶ done         response = done − at

``connect`` is the wait for a free connection, plus the handshake where a new one was opened.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STAGES = 16  # server stages kept of a run; others are left out
KNOWN_USER, COLD_USER = 1, 2


class Bucket(IntEnum):
    """How a scheduled request ended: exactly one for each."""

    UNSENT = 0
    OK = 1
    WRONG = 2
    SHED = 3
    TIMED_OUT = 4
    FAILED = 5


class Reason(IntEnum):
    """Why a request did not end as OK."""

    NONE = 0
    CONNECT = 1  # refused, unreachable, or no handshake
    RESET_IDLE = 2  # a kept-alive connection closed before the first byte of the answer
    RESET = 3  # a new connection closed before, or any connection within, the answer
    MALFORMED_HTTP = 4
    STATUS = 5  # a status that is none of ok, shed, timed out
    DEADLINE = 6  # no answer within the client's time limit
    STATUS_504 = 7
    NO_CONNECTION = 8  # every allowed connection was busy until the time limit
    STOPPED = 9  # the run was stopped first
    BODY = 10  # not the document that the API promises
    VERSION = 11  # header and body name different versions
    SCORES = 12  # not the offline answer of the version it names
    MIXED = 13  # the scores of more than one version in one answer
    FEATURES = 14  # `defaulted` or `ignored` are not the offline answer's
    DEGRADED = 15  # not the offline answer, and it says what it had to do without


FIELDS: list[tuple[str, str, tuple[int, ...]]] = [
    ("at", "f8", ()),
    ("attended", "f8", ()),
    ("sent", "f8", ()),
    ("done", "f8", ()),
    ("entry", "u4", ()),  # which prepared request
    ("bucket", "u1", ()),
    ("reason", "u1", ()),
    ("status", "u2", ()),
    ("version", "i2", ()),  # index into the generator's list of versions, −1 unknown
    ("opened", "u1", ()),  # 1: a connection was opened for it
    ("candidates", "u4", ()),  # asked for, of an OK answer that lists its unknown ones
    ("unknown", "u4", ()),  # of those
    ("cold", "u1", ()),  # KNOWN_USER, COLD_USER; 0: the answer does not say
    ("answer", "i8", ()),  # offset in the generator's answer file, −1 none
]
# Milliseconds, NaN where the server sent none
STAGE_FIELD: tuple[str, str, tuple[int, ...]] = ("stages", "f4", (STAGES,))


class Columns:
    """The mapped table; each field is an ndarray over all requests, in schedule order."""

    at: NDArray[np.float64]
    attended: NDArray[np.float64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    entry: NDArray[np.uint32]
    bucket: NDArray[np.uint8]
    reason: NDArray[np.uint8]
    status: NDArray[np.uint16]
    version: NDArray[np.int16]
    opened: NDArray[np.uint8]
    candidates: NDArray[np.uint32]
    unknown: NDArray[np.uint32]
    cold: NDArray[np.uint8]
    answer: NDArray[np.int64]
    stages: NDArray[np.float32]  # (N, STAGES), or (0, STAGES) when stages were not asked for

    def __init__(self, path: Path, requests: int, *, stages: bool, create: bool = False) -> None:
        self.requests = requests
        fields = [(*described, requests) for described in FIELDS]
        fields.append((*STAGE_FIELD, requests if stages else 0))
        total = sum(_padded_size(kind, shape, rows) for _, kind, shape, rows in fields)
        if create:
            with path.open("wb") as file:
                file.truncate(max(total, 1))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        offset = 0
        for name, kind, shape, rows in fields:
            count = rows * int(np.prod(shape))
            flat = np.frombuffer(self._map, np.dtype(kind), count, offset)
            setattr(self, name, flat.reshape(rows, *shape))
            offset += _padded_size(kind, shape, rows)
        if create:
            for clock in (self.attended, self.sent, self.done, self.stages):
                clock.fill(np.nan)
            self.version.fill(-1)
            self.answer.fill(-1)

    def touch(self) -> None:
        """Read every page, so that resident memory is flat from the first request to the last."""
        for name, _, _ in (*FIELDS, STAGE_FIELD):
            getattr(self, name).view(np.uint8).max(initial=0)


def _padded_size(kind: str, shape: tuple[int, ...], rows: int) -> int:
    """Bytes of one field, padded to 8 so that the next one is aligned."""
    return -(-rows * np.dtype(kind).itemsize * int(np.prod(shape)) // 8) * 8
