"""Writes a store to parquet files that ``load`` reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contract import FOUND, MISSING, FeatureStore, Ids, ItemBatch, Rows, UserBatch
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.content_digests import digest_column
from feature_store.parquet.content_digests import written as digests_written
from feature_store.parquet.histories import SEQUENCE, USER
from feature_store.parquet.stored_texts import Id, item_texts, named, printed, user_texts
from feature_store.parquet.text_columns import column_of
from feature_store.parquet.text_columns import written as texts_written
from feature_store.parquet.whole_file import WholeFiles
from feature_store.schema import Categorical, CategoricalList, Dense, Stored

ITEMS, HISTORIES, USERS = "items.parquet", "histories.parquet", "users.parquet"
SCHEMA = "schema.yaml"
DAMAGED, WITHOUT_TEXT = "damaged", "without text"  # why a record is left out
SHOWN = 20  # ids of each, in messages


@dataclass(slots=True)
class ExportReport:
    """Counts of an export."""

    items: int = 0
    histories: int = 0
    users: int = 0  # user records
    histories_with_id_0: int = 0  # padding in such a file: those clicks cannot be read back
    damaged: int = 0  # items and user records left out
    without_text: int = 0  # mapped store: items, users and clicks left out, whose text is missing
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, kind: str, ids: Iterable[str]) -> None:
        """Remember the first ids of a kind that are left out."""
        examples = self._examples.setdefault(kind, [])
        examples += islice(ids, SHOWN - len(examples))

    def examples(self, kind: str) -> str:
        return ", ".join(self._examples.get(kind, []))

    def as_json(self) -> dict[str, int]:
        values = asdict(self)
        return {name: value for name, value in values.items() if isinstance(value, int)}


class StoreExport:
    """Writes the items, the histories and the user records of a store, one of ``files`` each."""

    def __init__(self, store: FeatureStore, files: WholeFiles) -> None:
        self._store, self._files = store, files
        self.report = ExportReport()
        self._id = pa.int64() if store.text_ids is None else pa.string()

    async def items(self, path: Path, id_column: str) -> AsyncIterator[None]:
        """Write every item, a batch at a time."""
        columns = _columns(self._store.schema.stored_item, id_column, self._id)
        content = (await self._store.describe()).get("content")
        if isinstance(content, str):
            columns = columns.append(pa.field(digest_column(content), pa.string()))
        languages = await self._languages()
        for language in languages:
            columns = columns.append(pa.field(column_of(language), pa.string()))
        with self._files.writer(path, columns) as writer:
            async for batch in self._store.scan_items():
                texts = await item_texts(self._store, batch.ids)
                more = []
                if isinstance(content, str):
                    more.append(digests_written(batch.contents, len(batch.ids), content))
                if languages:
                    more += texts_written(await self._store.descriptions(batch.ids), languages)
                self.report.items += self._write(writer, path, id_column, batch, texts, more)
                yield

    async def _languages(self) -> list[str]:
        """List the languages of the texts that the store keeps."""
        found: set[str] = set()
        if self._store.schema.descriptions:
            async for batch in self._store.scan_items():
                found.update(*await self._store.descriptions(batch.ids))
        return sorted(found)

    async def users(self, path: Path, id_column: str) -> AsyncIterator[None]:
        """Write every user record, a batch at a time."""
        columns = _columns(self._store.schema.user, id_column, self._id)
        with self._files.writer(path, columns) as writer:
            async for batch in self._store.scan_users():
                texts = await user_texts(self._store, batch.ids.tolist())
                self.report.users += self._write(writer, path, id_column, batch, texts)
                yield

    def _write(
        self,
        writer: pq.ParquetWriter,
        path: Path,
        id_column: str,
        batch: ItemBatch | UserBatch,
        texts: Mapping[int, str],
        more: Sequence[pa.Array] = (),
    ) -> int:
        """Write the sound records with an id; return how many. ``more``: the last columns."""
        sound = batch.status == FOUND
        damaged = batch.ids[~sound & (batch.status != MISSING)].tolist()
        self.report.damaged += len(damaged)
        self.report.leave_out(DAMAGED, self._printed(damaged, texts))
        good = sound & self._have_texts(batch.ids, texts)
        self._leave_out_numbers(batch.ids[sound & ~good].tolist())
        ids, rows = named(batch.ids[good].tolist(), texts), batch.rows[good]
        if id_column in (rows.dtype.names or ()) and ids != rows[id_column].tolist():
            what, option = ("items", "") if isinstance(batch, ItemBatch) else ("users", "user-")
            raise DataFileError(
                f"{path}: {what}' ids differ from their feature {id_column!r}; "
                f"name another id column with --{option}id-column"
            )
        own = [name for name in rows.dtype.names or () if name != id_column]
        arrays = [pa.array(ids, self._id), *(_array(rows, name) for name in own)]
        arrays += [column.filter(pa.array(good)) for column in more]
        writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))
        return len(ids)

    async def histories(self, path: Path) -> AsyncIterator[None]:
        """Write every history, newest last, a batch at a time."""
        columns = pa.schema([(USER, self._id), (SEQUENCE, pa.list_(self._id))])
        with self._files.writer(path, columns) as writer:
            async for batch in self._store.scan_histories():
                users, newest_last = await self._named(batch)
                arrays = [pa.array(users, self._id), pa.array(newest_last, columns.field(1).type)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=columns))
                self.report.histories += len(users)
                if self._store.text_ids is None:
                    self.report.histories_with_id_0 += sum(not i.all() for i in batch.values())
                yield

    async def _named(self, batch: Mapping[int, Ids]) -> tuple[list[Id], list[Any]]:
        """Return users and their items, newest last; those without a text are left out."""
        if self._store.text_ids is None:
            return list(batch), [items[::-1] for items in batch.values()]
        users = await user_texts(self._store, list(batch))
        clicks = np.concatenate([np.zeros(0, np.int64), *batch.values()])
        items = await item_texts(self._store, clicks)
        self._leave_out_numbers([user for user in batch if user not in users])
        self._leave_out_numbers(clicks[~self._have_texts(clicks, items)].tolist())
        kept = [user for user in batch if user in users]
        return named(kept, users), [
            [items[item] for item in batch[user][::-1].tolist() if item in items] for user in kept
        ]

    def _have_texts(self, numbers: Ids, texts: Mapping[int, str]) -> NDArray[np.bool_]:
        if self._store.text_ids is None:
            return np.ones(len(numbers), np.bool_)
        return np.isin(numbers, np.fromiter(texts, np.int64, len(texts)))

    def _leave_out_numbers(self, numbers: Sequence[int]) -> None:
        self.report.without_text += len(numbers)
        self.report.leave_out(WITHOUT_TEXT, map(str, numbers))

    def _printed(self, numbers: Sequence[int], texts: Mapping[int, str]) -> list[str]:
        return [printed(self._store, identity) for identity in named(numbers, texts)]


def _columns(features: Sequence[Stored], id_column: str, id_type: pa.DataType) -> pa.Schema:
    """The id column, then the features except one of the same name."""
    columns = [(id_column, id_type)]
    for feature in features:
        if feature.name == id_column:
            continue
        match feature:
            case Categorical():
                columns.append((feature.name, pa.int32()))
            case CategoricalList():
                columns.append((feature.name, pa.list_(pa.int32(), feature.slots)))
            case Dense():
                columns.append((feature.name, pa.list_(pa.float32(), feature.size)))
    return pa.schema(columns)


def _array(rows: Rows, name: str) -> Any:
    values = np.ascontiguousarray(rows[name])
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
