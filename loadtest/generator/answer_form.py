"""Validates answers against their requests while no request is due.

Checks form only: ids, ranges, order, versions. The oracle compares scores with the offline answer
after the run, from the answers kept in a file.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtest.generator.columns import (
    COLD_USER,
    KNOWN_USER,
    STAGES,
    Bucket,
    Columns,
    Reason,
)
from loadtest.generator.config import GeneratorConfig
from loadtest.generator.workload import SCORE, Bank

NOTES = ("defaulted", "ignored", "degraded")  # as ``oracle.comparison.Notes`` has them
LONGEST_NAME = 64  # of a version or stage
MOST_VERSIONS = 256


class AnswerChecker:
    """Moves malformed answers from OK to WRONG; records versions, server stages and scores."""

    def __init__(self, config: GeneratorConfig, bank: Bank, columns: Columns, number: int) -> None:
        self._bank, self._columns, self._stages = bank, columns, config.stages
        self._file = config.answers(number).open("wb") if config.keep_answers else None
        self._numeric = config.ids == "numeric"
        self._written = 0
        self.versions: list[str] = []
        self.stages: list[str] = []

    def check(self, row: int, version: bytes, timing: bytes, chunks: list[bytes]) -> None:
        columns = self._columns
        if self._stages and timing:
            self._keep_stages(row, timing)
        if columns.bucket[row] != Bucket.OK or self._bank.kind[columns.entry[row]] != SCORE:
            return
        reason = self._judge(row, version, b"".join(chunks))
        if reason:
            columns.bucket[row], columns.reason[row] = Bucket.WRONG, reason

    def _judge(self, row: int, header: bytes, body: bytes) -> Reason:
        try:
            answer = orjson.loads(body)
            ids, scores, version = answer["item_ids"], answer["scores"], answer["model_version"]
            asked = self._bank.document(self._columns.entry[row])
            good = fits(asked, ids, scores)
            if not good and self._numeric:
                asked["candidates"] = as_answered(asked)
                good = fits(asked, ids, scores)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return Reason.BODY
        notes = [answer.get(name) for name in NOTES]
        if not all(note is None or is_texts(note) for note in notes):
            return Reason.BODY
        if not good or not isinstance(version, str) or len(version) > LONGEST_NAME:
            return Reason.BODY
        if version not in self.versions and len(self.versions) == MOST_VERSIONS:
            return Reason.BODY
        self._columns.version[row] = _number(self.versions, version)
        if header and header.decode("latin-1") != version:
            return Reason.VERSION
        if isinstance(unknown := answer.get("unknown_items"), list):
            self._columns.candidates[row] = len(asked["candidates"])
            self._columns.unknown[row] = len(unknown)
        if isinstance(cold := answer.get("cold_user"), bool):
            self._columns.cold[row] = COLD_USER if cold else KNOWN_USER
        if self._file is not None:
            self._columns.answer[row] = self._written
            self._written += self._file.write(len(ids).to_bytes(8, "little"))
            self._written += self._file.write(places(asked, ids).tobytes())
            self._written += self._file.write(np.array(scores, "<f8").tobytes())
            noted = orjson.dumps(notes)
            self._written += self._file.write(len(noted).to_bytes(8, "little") + noted)
        return Reason.NONE

    def _keep_stages(self, row: int, timing: bytes) -> None:
        for name, milliseconds in parse_server_timing(timing.decode("latin-1")):
            if name in self.stages or len(self.stages) < STAGES:
                self._columns.stages[row, _number(self.stages, name)] = milliseconds

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def fits(asked: dict[str, Any], ids: Sequence[int | str], scores: list[float | None]) -> bool:
    """Whether the arrays cover the candidates in order, or ``top_k`` of them by falling score."""
    if len(ids) != len(scores):
        return False
    if not all(score is None or (0.0 <= score <= 1.0) for score in scores):
        return False
    top_k = asked.get("top_k")
    if top_k is None:
        return bool(ids == asked["candidates"])
    ranked = [math.nan if score is None else score for score in scores]
    falling = all(first >= second for first, second in itertools.pairwise(ranked))
    return falling and len(ids) <= top_k and set(ids) <= set(asked["candidates"])


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def as_answered(asked: dict[str, Any]) -> list[int | str]:
    """Return the candidates as a service of numeric ids names them: as numbers, or as strings."""
    numbers = map(int, asked["candidates"])
    return list(map(str, numbers)) if asked.get("ids_as_strings") else list(numbers)


def places(asked: dict[str, Any], ids: Sequence[int | str]) -> NDArray[np.uint32]:
    """(N,) place of each id among the candidates: of a repeated one the first."""
    if asked.get("top_k") is None:
        return np.arange(len(ids), dtype="<u4")
    candidates = asked["candidates"]
    place = dict(zip(reversed(candidates), range(len(candidates) - 1, -1, -1), strict=True))
    return np.array([place[id_] for id_ in ids], "<u4")


def _number(names: list[str], name: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        names.append(name)
        return len(names) - 1


def parse_server_timing(header: str) -> Iterator[tuple[str, float]]:
    """Yield (stage, milliseconds) of each metric with a duration (W3C Server Timing).

    A proxy may have added some: those of odd form are left out.
    """
    for metric in header.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "dur" and 0 < len(name) <= LONGEST_NAME:
                with contextlib.suppress(ValueError):
                    milliseconds = float(value.strip().strip('"'))
                    if math.isfinite(milliseconds):
                        yield name, milliseconds
