"""Reads a log of requests as a table of lists: what ``loadtest plan`` writes.

    {"at": 0.0132, "user_id": 7, "candidates": [4, 17, 99], "features": {"hour": 21}}

A row is a score request, in the order of the lines; clicks (lines with ``item_id``) are left out. A
request's own ``history`` (oldest first) is used in place of the stored one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import IO, Any

import orjson
import pyarrow as pa

from feature_store.parquet.columns import DataFileError

SUFFIXES = (".jsonl", ".ndjson")
AT, USER, ITEMS, HISTORY = "at", "user_id", "item_ids", "history"
CANDIDATES = "candidates"  # of a line
MARKED = 1024  # rows between those whose place in the file is kept
KINDS = {int: "whole numbers", str: "texts"}

Line = tuple[int, dict[str, Any]]  # its number, from 1, and the request


class LogTable:
    """One log; see ``feature_store.parquet.parts.Table``. ``opened`` opens it from the start."""

    def __init__(self, path: Path, opened: Callable[[], IO[bytes]]) -> None:
        """Read it once. DataFileError names the first line that is no request."""
        self.path, self._opened = path, opened
        self.rows = 0
        self.has_history = False
        self._marks: list[tuple[int, int]] = []  # byte and lines before each MARKED-th row
        self._context: dict[str, None] = {}  # names, in order
        self._features: dict[str, None] = {}
        self._ids: type = int
        for number, offset, request in self._lines(0, 0):
            if self.rows % MARKED == 0:
                self._marks.append((offset, number - 1))
            self._notice(number, request)
            self.rows += 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of lists, with the features that the requests give."""
        history = (HISTORY,) * self.has_history
        return (AT, USER, ITEMS, *history, *self._context, *self._features)

    def require(self, column: str) -> None:
        """DataFileError without it."""
        if column not in self.columns:
            raise DataFileError(
                f"{self.path}: has no column {column!r}; a log of requests has: "
                f"{', '.join(self.columns)}"
            )

    def kind(self, column: str) -> pa.DataType:
        """Return the type of a column."""
        ids = pa.string() if self._ids is str else pa.int64()
        kinds = {AT: pa.float64(), USER: ids, ITEMS: pa.list_(ids), HISTORY: pa.list_(ids)}
        if column in self._context:
            return pa.list_(pa.int64())
        return kinds.get(column, pa.float64())

    def values_of_a_row(self, column: str) -> float:
        """Not known without reading it."""
        return 1.0

    def batches(
        self, columns: Sequence[str], batch_size: int, start: int = 0
    ) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """(number of the first row, columns) from row ``start`` on."""
        if start >= self.rows:
            return
        row = start - start % MARKED
        offset, before = self._marks[row // MARKED]
        held: list[Line] = []
        for number, _, request in self._lines(offset, before):
            if row >= start:
                held.append((number, request))
            row += 1
            if len(held) == batch_size:
                yield row - len(held), self._arrays(held, columns)
                held = []
        if held:
            yield row - len(held), self._arrays(held, columns)

    def _lines(self, offset: int, number: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield number, place and content of each score request after ``number`` lines."""
        with self._opened() as file:
            file.seek(offset)
            for line in file:
                number += 1
                request = self._parsed(number, line)
                if request is not None:
                    yield number, offset, request
                offset += len(line)

    def _parsed(self, number: int, line: bytes) -> dict[str, Any] | None:
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._wrong(number, f"not JSON: {error}") from None
        if not isinstance(request, dict):
            raise self._wrong(number, "not a JSON object")
        if CANDIDATES in request:
            return request
        if "item_id" in request:
            return None
        raise self._wrong(number, "neither 'candidates' (a score request) nor 'item_id' (a click)")

    def _notice(self, number: int, request: dict[str, Any]) -> None:
        """Check the form of a request, and note which columns there are."""
        if USER not in request:
            raise self._wrong(number, "has no 'user_id'")
        for name in (CANDIDATES, HISTORY):
            if request.get(name) is not None and not isinstance(request[name], list):
                raise self._wrong(number, f"{name}: not a list of ids")
        for name in ("context", "features"):
            if not isinstance(request.get(name, {}), dict):
                raise self._wrong(number, f"{name}: not an object")
        context = request.get("context", {})
        if self.rows == 0:
            ids = [request[USER], *(request[CANDIDATES] or ())]
            self._ids = next((type(each) for each in ids if each is not None), int)
            self._context = dict.fromkeys(context)
        if context.keys() != self._context.keys():
            name = sorted(context.keys() ^ self._context.keys())[0]
            raise self._wrong(number, f"context: {name} is in some requests alone; give it in all")
        self._features |= dict.fromkeys(request.get("features", {}))
        self.has_history |= request.get(HISTORY) is not None

    def _arrays(self, lines: list[Line], columns: Sequence[str]) -> dict[str, pa.Array]:
        return {name: self._array(name, lines) for name in columns}

    def _array(self, name: str, lines: list[Line]) -> pa.Array:
        values = [self._value(name, request) for _, request in lines]
        if name in (USER, ITEMS, HISTORY):
            for (number, _), value in zip(lines, values, strict=True):
                self._check_ids(number, name, value)
        kind = None if name in self._features else self.kind(name)
        try:
            return pa.array(values, kind)
        except OverflowError:
            why = "a number beyond 63 bits"
        except (pa.ArrowException, TypeError, ValueError) as error:
            why = " ".join(str(error).split())
        for (number, _), value in zip(lines, values, strict=True):
            try:
                pa.array([value], kind)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                raise self._wrong(number, f"{name}: {why}") from None
        raise self._wrong(lines[0][0], f"{name}: {why}")

    def _check_ids(self, number: int, name: str, value: Any) -> None:
        """Arrow would cut 1.5 to 1 in a list. DataFileError."""
        ids = value if isinstance(value, list) else [value]
        if not {type(each) for each in ids} <= {self._ids, NoneType}:
            other = next(each for each in ids if not isinstance(each, (self._ids, NoneType)))
            kind = KINDS.get(self._ids, "neither numbers nor texts")
            raise self._wrong(
                number, f"{name}: {other!r} is no id here: those of line 1 are {kind}"
            )

    def _value(self, name: str, request: dict[str, Any]) -> Any:
        if name in (AT, USER, HISTORY):
            return request.get(name)
        if name == ITEMS:
            return request[CANDIDATES]
        if name in self._context:
            return request["context"][name]
        return request.get("features", {}).get(name)

    def _wrong(self, number: int, why: str) -> DataFileError:
        return DataFileError(f"{self.path}: line {number}: {why}")


def is_log(path: str) -> bool:
    """Whether a file of this name is a log."""
    return path.endswith(SUFFIXES)
