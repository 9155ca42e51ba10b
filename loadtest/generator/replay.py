"""Reads and writes request logs for ``--replay``: a JSON line each, ``at`` seconds and the request.

    {"at": 0.0132, "user_id": 7, "candidates": [4, 17, 99]}
    {"at": 0.0201, "user_id": 7, "item_id": 17}
    {"at": 0.0342, "user_id": "u-81", "candidates": ["sku-4", "sku-17"]}

A line with ``candidates`` is a score request, one with ``item_id`` a click. ``python -m loadtest
plan`` writes such a log from a schedule.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from loadtest.generator.schedule import ScheduleError, Times, bounded
from loadtest.generator.workload import EVENT, SCORE

if TYPE_CHECKING:
    from feature_store.options import IdKind


def read_log(
    path: Path, *, speed: float = 1.0, ids: IdKind | None = None
) -> tuple[Times, list[tuple[int, dict[str, Any]]]]:
    """Read times since the first line, divided by ``speed``, and bodies. Errors name the line.

    ``ids``: the service's; ScheduleError if not one request's are of that kind.
    """
    if not speed > 0:
        raise ScheduleError(f"speed: {speed:g} is not positive")
    moments: list[float] = []
    documents: list[tuple[int, dict[str, Any]]] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                at, kind, document = _read_line(line, f"{path}, line {number}")
                if moments and at < moments[-1]:
                    raise ScheduleError(f"{path}, line {number}: earlier than the line before it")
                moments.append(at)
                documents.append((kind, document))
    except OSError as error:
        raise ScheduleError(f"replay: {path}: {error.strerror}") from error
    if not moments:
        raise ScheduleError(f"replay: {path} is empty")
    users = [document.get("user_id") for _, document in documents]
    if ids is not None and not any(is_of_kind(user, ids) for user in users):
        wanted = "texts" if ids == "mapped" else "numbers"
        raise ScheduleError(
            f"replay: {path}, line 1: user_id is {users[0]!r}; the service's ids are {wanted}"
        )
    times = (np.array(moments) - moments[0]) / speed
    bounded(times.size, max(float(times[-1]), 1e-9))
    return times, documents


def _read_line(line: bytes, place: str) -> tuple[float, int, dict[str, Any]]:
    try:
        document = orjson.loads(line)
        at = float(document.pop("at"))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScheduleError(f'{place}: expected {{"at": SECONDS, …}}: {error!r}') from None
    if "candidates" in document:
        return at, SCORE, document
    if "item_id" in document:
        return at, EVENT, document
    raise ScheduleError(f"{place}: neither 'candidates' (a score request) nor 'item_id' (a click)")


def is_of_kind(id_: object, kind: IdKind) -> bool:
    """Whether a service of that kind takes the id: a number may also be a decimal string."""
    if kind == "mapped":
        return isinstance(id_, str)
    return isinstance(id_, int) or (isinstance(id_, str) and id_.isdecimal())


def write_log(path: Path, times: Times, documents: list[tuple[int, dict[str, Any]]]) -> None:
    """Write a schedule as a log, for ``read_log`` or another tool."""
    with path.open("wb") as file:
        for number, at in enumerate(times.tolist()):
            _, document = documents[number % len(documents)]
            file.write(orjson.dumps({"at": at, **document}) + b"\n")
