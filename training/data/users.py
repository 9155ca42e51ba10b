"""Users of training: a users file, the index of each user, and the users of a row file.

A user feature is read from the users file (``user_id`` and a column per feature) where that has
it, else from a column of the rows, else, for the identity alone, from ``user_id``: users get
indices 1, 2, … in ascending order of their ids. A column ``user_id`` is both the id and the
feature of that name.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_store.contract import Ids
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import ItemParquet
from feature_store.parquet.table import tables_of
from feature_store.schema import Categorical, FeatureSchema, Stored
from training.data.catalogue import feature_tensors
from training.data.user_ids import USER, UserIdReader, UserTexts, refused_collisions

ID = "ID"  # no feature has a name with capitals


@dataclass(frozen=True)
class UserTable:
    """Some user features of U users, by user id."""

    source: str  # for messages
    features: tuple[Stored, ...]
    ids: Ids  # (U,) ascending
    rows: NDArray[np.void]  # (U,) a field per feature
    texts: UserTexts | None = None  # of text ids

    @classmethod
    def read(cls, path: Path, schema: FeatureSchema, but: Container[str] = ()) -> UserTable:
        """Read the columns that are features of the schema from a file or a folder of parts.

        ``but`` are features that need not be read.

        Raises DataFileError (file, row, column) as for items.
        """
        columns = tables_of(path)[0].columns
        features = tuple(f for f in schema.user if f.name in columns and f.name not in but)
        if not features:
            return cls(str(path), (), np.zeros(0, np.int64), np.zeros(0, np.dtype([])))
        text_ids = UserIdReader(path, schema).text_ids
        alone = FeatureSchema(name=schema.name, history_length=1, item=features)
        with refused_collisions():
            file = ItemParquet([path], alone, id_column=USER, strict=True, text_ids=text_ids)
            batches = list(file.batches())
        ids = np.concatenate([np.zeros(0, np.int64), *(b.ids for b in batches)])
        rows = np.concatenate([np.zeros(0, alone.item_dtype), *(b.rows for b in batches)])
        order = np.argsort(ids)
        texts = {number: text for b in batches for number, text in b.texts.items()}
        of_ids = UserTexts.of(texts) if text_ids else None
        return cls(str(path), features, ids[order], rows[order], of_ids)

    @classmethod
    def unassigned(cls, identity: Categorical) -> UserTable:
        """A table without users, for the identity whose indices are found later."""
        return cls(USER, (identity,), np.zeros(0, np.int64), np.zeros(0, _index_dtype(identity)))

    @classmethod
    def assign(
        cls, identity: Categorical, rows: RowUsers, min_count: int, texts: UserTexts | None = None
    ) -> UserTable:
        """Assign indices 1, 2, … to users of at least ``min_count`` rows, by ascending id.

        ``texts``: the ids of the rows' users, where they are texts.
        """
        users, of_record = np.unique(rows.ids[1:], return_inverse=True)
        records = np.bincount(rows.row, minlength=len(rows.ids))[1:]
        counts = np.bincount(of_record, weights=records, minlength=len(users))
        kept = users[counts >= min_count]
        if len(kept) >= identity.vocabulary:
            raise DataFileError(
                f"train.parquet: {len(kept):,} users of at least {min_count} rows, and a "
                f"vocabulary of {identity.vocabulary:,} for {identity.name}: make it "
                f"{len(kept) + 1:,} in the schema, or raise user_min_count in the recipe"
            )
        index = np.zeros(len(kept), _index_dtype(identity))
        index[identity.name] = np.arange(1, len(kept) + 1)
        if texts is not None:
            index[identity.name] = pc.rank(texts.of_users(kept), tiebreaker="first").to_numpy()
        return cls(USER, (identity,), kept, index, texts)

    def with_users_of(self, others: Iterable[UserTable]) -> UserTable:
        """Add the further users of other tables; their features are 0."""
        tables = [self, *others]
        ids = np.unique(np.concatenate([table.ids for table in tables]))
        rows = np.zeros(len(ids), self.rows.dtype)
        rows[np.searchsorted(ids, self.ids)] = self.rows
        return replace(self, ids=ids, rows=rows, texts=UserTexts.joined(t.texts for t in tables))

    def fill(self, records: NDArray[np.void], ids: Ids) -> int:
        """Set the features of users (N,) in their records; return how many users are unknown."""
        at = np.searchsorted(self.ids, ids)
        known = at < len(self.ids)
        known[known] = self.ids[at[known]] == ids[known]
        for feature in self.features:
            records[feature.name][known] = self.rows[feature.name][at[known]]
        return len(ids) - int(known.sum())

    def parquet(self) -> bytes:
        """The table as a parquet file: a users file."""
        columns = {USER: self.texts.of_users(self.ids) if self.texts else pa.array(self.ids)}
        columns |= {f.name: pa.array(self.rows[f.name].tolist()) for f in self.features}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        return bytes(sink.getvalue())


@dataclass(frozen=True)
class RowUsers:
    """The users of a row file. Record 0 is the unknown user, all zero; others are distinct."""

    ids: Ids  # (V,) user id of each record
    row: NDArray[np.int32]  # (n,) record of each row
    tensors: dict[str, Tensor]  # by user feature, (V, …)
    assigned: UserTable | None = None  # indices of users, where they were found from the rows

    @classmethod
    def of(
        cls,
        schema: FeatureSchema,
        distinct: NDArray[np.void],
        row: NDArray[np.int32],
        tables: Iterable[UserTable],
    ) -> tuple[RowUsers, dict[str, int]]:
        """Join distinct users of a row file to tables; count the unknown users by table.

        distinct (V,): user id and the features that are columns of the rows.
        """
        records = np.zeros(len(distinct), schema.user_dtype)
        for name in distinct.dtype.names or ():
            if name != ID:
                records[name] = distinct[name]
        unknown = {table.source: table.fill(records[1:], distinct[ID][1:]) for table in tables}
        return cls(distinct[ID], row, feature_tensors(schema.user, records)), unknown

    def with_index(self, identity: Categorical, assigned: UserTable) -> RowUsers:
        """Set the identity of every user."""
        index = np.zeros(len(self.ids), _index_dtype(identity))
        assigned.fill(index[1:], self.ids[1:])
        tensors = self.tensors | feature_tensors([identity], index)
        return replace(self, tensors=tensors, assigned=assigned)

    def without_rare(self, identity: Categorical, min_count: int) -> RowUsers:
        """Set the identity of users whose index is in fewer than ``min_count`` rows to 0."""
        index = self.tensors[identity.name]
        rare = self.rows_per_index(identity) < min_count
        frequent = torch.where(rare[index], 0, index)
        return replace(self, tensors=self.tensors | {identity.name: frequent})

    def rows_per_index(self, identity: Categorical) -> Tensor:
        """Count the rows of each index of the identity, (vocabulary,)."""
        rows = torch.from_numpy(np.bincount(self.row, minlength=len(self.ids)))
        index = self.tensors[identity.name]
        return torch.bincount(index, weights=rows, minlength=identity.vocabulary)

    def record(self, schema: FeatureSchema, number: int) -> NDArray[np.void]:
        """One user as a store keeps it, (1,) of ``schema.user_dtype``."""
        found = np.zeros(1, schema.user_dtype)
        for name, values in self.tensors.items():
            found[name] = values[number].numpy()
        return found

    def batch(self, chosen: NDArray[np.int64]) -> tuple[dict[str, Tensor], Tensor]:
        """Gather the distinct users of the chosen rows, the unknown one first, and each row's."""
        row = torch.from_numpy(self.row[chosen]).long()
        unknown_first = torch.cat([row.new_zeros(1), row])
        distinct, position = torch.unique(unknown_first, return_inverse=True)
        return {name: values[distinct] for name, values in self.tensors.items()}, position[1:]


class DistinctUsers:
    """Collects distinct records of users, batch by batch, in order of first occurrence."""

    def __init__(self, features: Sequence[Stored], schema: FeatureSchema) -> None:
        fields = [(f.name, schema.user_dtype[f.name]) for f in features]
        self.dtype = np.dtype([(ID, np.dtype("<i8")), *fields])
        # Records of the id alone are compared as numbers, which sort faster than bytes.
        size = self.dtype.itemsize
        self._key = np.dtype(np.int64) if size == 8 else np.dtype((np.void, size))
        self._seen: dict[bytes | int, int] = {}
        self._parts = [np.zeros(1, self.dtype)]
        self._parts[0][ID] = -1

    def add(self, records: NDArray[np.void]) -> NDArray[np.int32]:
        """Return the number of each record (N,), from 1."""
        raw = records.view(self._key)
        unique, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
        count = len(self._seen)
        numbers = [self._seen.setdefault(key, len(self._seen) + 1) for key in unique.tolist()]
        number = np.array(numbers, np.int32)
        self._parts.append(records[first[number > count]])
        return number[inverse]

    @property
    def records(self) -> NDArray[np.void]:
        """All records (V,); the first stands for none."""
        return np.concatenate(self._parts)


def _index_dtype(identity: Categorical) -> np.dtype[np.void]:
    return np.dtype([(identity.name, "<i4")])
