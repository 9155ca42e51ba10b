"""Loads parquet files into a store; resumable after a kill.

After each batch the progress is written to a note in the store, with the identity of the sources:
the same command resumes there, any other starts over. Loading inserts and replaces; it deletes
nothing (``check`` lists surplus records).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from feature_store.contract import FeatureStore, Ids
from feature_store.output_files import discard, is_device
from feature_store.parquet.columns import RejectedRow
from feature_store.parquet.histories import HistoryParquet, HistoryParquetBatch
from feature_store.parquet.items import ItemParquet, ItemParquetBatch
from feature_store.parquet.named_items import NamedItems
from feature_store.parquet.table import files_of

T = TypeVar("T")
NOTE = "load"
BATCH_ROWS = 8192


class LoadReport(BaseModel):
    """Counts and progress of a load, to resume it with."""

    sources: str
    phase: int = 0  # 0: items, 1…: the history files in the order given, then the users
    row: int = 0  # of that phase, to continue at
    items: int = 0
    histories: int = 0
    users: int = 0  # user records
    empty: int = 0  # histories without a click, which are not kept
    cut: int = 0  # histories truncated to the schema's ``history_length``
    rejected: int = 0
    rejected_users: int = 0  # of these, rows of the users files
    joined_to_nothing: int = 0  # ids of further item or users files, missing in the first
    differing: int = (
        0  # items and users with conflicting values in a column that several files have
    )
    clicked_items: int = 0  # distinct items of the first histories of each file
    unknown_items: int = 0  # of these, no item of the store
    superseded: int = 0  # history rows followed by a later one of their user
    history_rows: int = 0  # of all history files; histories + superseded + those rejected
    rejects_bytes: int = 0  # length of the file of rejected rows


Batch = ItemParquetBatch | HistoryParquetBatch
Advance = Callable[[int, int], None]  # (phase, row) -> None


@dataclass(slots=True)
class LoadJob:
    """Loads item files, then history files, then users files, into a store."""

    store: FeatureStore
    items: ItemParquet | None
    histories: Sequence[HistoryParquet]
    sources: str  # ``identity`` of the files and options
    users: ItemParquet | None = None  # ``user_parquet``
    later: Sequence[HistoryParquet] = ()  # files after the one that is being loaded
    named: NamedItems = field(init=False)

    def __post_init__(self) -> None:
        self.named = NamedItems(self.store)

    @property
    def phases(self) -> list[ItemParquet | HistoryParquet | None]:
        return [self.items, *self.histories, self.users]

    async def resumed(self) -> LoadReport:
        """The report of a stopped load of the same sources; else a new one."""
        fresh = LoadReport(sources=self.sources)
        note = await self.store.get_note(NOTE)
        try:
            stopped = LoadReport.model_validate_json(note) if note else fresh
        except ValidationError:  # of another release
            return fresh
        return stopped if stopped.sources == self.sources else fresh

    async def run(self, report: LoadReport, rejects: Path, advance: Advance) -> LoadReport:
        """LoadJob the rest after ``report``. Writes a JSON line per rejected row to ``rejects``."""
        tables = [source for source in (self.items, self.users) if source is not None]
        report.joined_to_nothing = sum(source.joined_to_nothing for source in tables)
        report.superseded = superseded(self.histories)
        report.history_rows = sum(source.rows for source in self.histories)
        with _Rejects(rejects, report.rejects_bytes) as rejected:
            for number, phase in enumerate(self.phases):
                if phase is None or number < report.phase:
                    continue
                start = report.row if number == report.phase else 0
                advance(number, start)
                batches: Iterator[Batch] = phase.batches(BATCH_ROWS, start)
                self.later = self.histories[number:] if number else ()
                async for batch in ahead(batches):
                    if phase is self.users and isinstance(batch, ItemParquetBatch):
                        await self._put_users(batch, report)
                    else:
                        await self._put(batch, report)
                    report.rejects_bytes = rejected.write(batch.rejected)
                    report.rejected += len(batch.rejected)
                    report.phase, report.row = number, batch.next_row
                    await self.store.put_note(NOTE, report.model_dump_json().encode())
                    advance(number, batch.next_row)
        await self.store.put_note(NOTE, None)
        return report

    async def _put_users(self, batch: ItemParquetBatch, report: LoadReport) -> None:
        await self.store.put_users(batch.ids, batch.rows, batch.texts)
        report.users += len(batch.ids)
        report.differing += batch.differing
        report.rejected_users += len(batch.rejected)

    async def _put(self, batch: Batch, report: LoadReport) -> None:
        """Store a batch, without the histories of users whom a later file has again."""
        if isinstance(batch, ItemParquetBatch):
            await self.named.write(batch.texts)
            await self.store.put_items(batch.ids, batch.rows, batch.contents)
            if batch.descriptions:
                await self.store.put_descriptions(batch.descriptions)
            report.items += len(batch.ids)
            report.differing += batch.differing
        else:
            users = np.fromiter(batch.histories, np.int64, len(batch.histories))
            for source in self.later:
                users = users[~_are_in(users, source.users)]
            histories = {user: batch.histories[user] for user in users.tolist()}
            texts = {user: batch.user_texts[user] for user in histories if batch.user_texts}
            await self.named.write(batch.item_texts)
            await self.store.put_histories(histories, texts)
            report.histories += len(histories)
            report.empty += sum(not len(history) for history in histories.values())
            longest = self.store.schema.history_length
            report.cut += sum(len(history) > longest for history in histories.values())


def _are_in(users: Ids, known: Ids) -> NDArray[np.bool_]:
    """Tell which users are among the ``known``, which are sorted."""
    if not len(known):
        return np.zeros(len(users), np.bool_)
    found: NDArray[np.bool_] = known[np.searchsorted(known[:-1], users)] == users
    return found


def superseded(sources: Sequence[HistoryParquet]) -> int:
    """Count valid rows that a later row of the same user supersedes."""
    users = [source.users for source in sources]
    every = len(np.unique(np.concatenate(users))) if users else 0
    return sum(source.sound for source in sources) - every


def identity(paths: Sequence[Path], options: str) -> str:
    """Digest of the files' names, sizes, modification times and parquet footers."""
    digest = hashlib.sha256(options.encode())
    for path in (file for source in paths for file in files_of(source)):
        stat = path.stat()
        with path.open("rb") as file:
            file.seek(max(0, stat.st_size - 65_536))
            digest.update(f"{path.name}:{stat.st_size}:{stat.st_mtime_ns}:".encode() + file.read())
    return digest.hexdigest()


class _Rejects:
    """Appends to the file of rejected rows after ``kept_bytes``; created on the first row."""

    def __init__(self, path: Path, kept_bytes: int) -> None:
        self._path, self._bytes = path, kept_bytes
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Rejects:
        if self._bytes == 0:
            discard(self._path)
        elif self._path.exists():
            self._open()
        return self

    def write(self, rows: Sequence[RejectedRow]) -> int:
        """Append rows; return the file's length."""
        if rows:
            file = self._file or self._open()
            lines = b"".join(json.dumps(asdict(row)).encode() + b"\n" for row in rows)
            file.write(lines)
            file.flush()
            self._bytes += len(lines)
        return self._bytes

    def _open(self) -> BinaryIO:
        if is_device(self._path):  # cannot be cut
            self._file = self._path.open("wb")
            return self._file
        self._path.touch()
        self._file = self._path.open("r+b")
        self._bytes = min(self._bytes, self._path.stat().st_size)
        self._file.truncate(self._bytes)
        self._file.seek(self._bytes)
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()


async def ahead(batches: Iterator[T]) -> AsyncIterator[T]:
    """Read ahead: read the next batch in a thread while the caller handles the last."""
    end = object()
    following = asyncio.create_task(asyncio.to_thread(next, batches, end))
    try:
        while (batch := await following) is not end:
            following = asyncio.create_task(asyncio.to_thread(next, batches, end))
            yield batch  # type: ignore[misc]
    finally:
        await asyncio.wait([following])  # leaves no thread reading
