"""Is the answer the document that was asked for? Looked at while nothing is due.

Here only what the answer shows by itself; whether its scores are *right* is the oracle's question,
asked after the run from the answers kept in a file.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import orjson

from loadtest.analysis.stages import parse_server_timing
from loadtest.generator.columns import STAGES, Bucket, Columns, Reason
from loadtest.generator.plan import Plan
from loadtest.generator.workload import SCORE, Bank


class AnswerChecker:
    """Moves answers that are not what they should be from OK to WRONG, and notes what they say."""

    def __init__(self, plan: Plan, bank: Bank, columns: Columns, number: int) -> None:
        self._bank, self._columns, self._stages = bank, columns, plan.stages
        self._file = plan.answers(number).open("wb") if plan.keep_answers else None
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
            good = fits(self._bank.document(self._columns.entry[row]), ids, scores)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return Reason.BODY
        if not good or not isinstance(version, str):
            return Reason.BODY
        self._columns.version[row] = _number(self.versions, version)
        if header and header.decode("latin-1") != version:
            return Reason.VERSION
        if self._file is not None:
            self._columns.answer[row] = self._written
            self._written += self._file.write(len(ids).to_bytes(8, "little"))
            self._written += self._file.write(np.array(ids, "<i8").tobytes())
            self._written += self._file.write(np.array(scores, "<f8").tobytes())
        return Reason.NONE

    def _keep_stages(self, row: int, timing: bytes) -> None:
        for name, milliseconds in parse_server_timing(timing.decode("latin-1")):
            place = _number(self.stages, name)
            if place >= STAGES:
                raise ValueError(f"Server-Timing: more than {STAGES} stages: {self.stages}")
            self._columns.stages[row, place] = milliseconds

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def fits(asked: dict[str, Any], ids: list[int], scores: list[float | None]) -> bool:
    """Parallel arrays over what was asked, in its order, or the best ``top_k`` of it."""
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


def _number(names: list[str], name: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        names.append(name)
        return len(names) - 1
