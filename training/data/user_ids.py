"""User ids of training: integers as they are, texts as numbers.

Texts (strings, UUIDs) become the numbers of ``TextIds`` under one key, so that files, runs and
caches agree. Two texts of one number are refused, and so is a file of texts beside one of integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.contract import Ids
from feature_store.errors import TextCollision
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.id_columns import IdColumn, IdReader, is_text
from feature_store.parquet.table import tables_of
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds

USER = "user_id"
NUMBER, TEXT = "number", "text"  # columns of kept texts
TEXT_IDS = TextIds(b"users of training")


@dataclass(frozen=True)
class UserTexts:
    """The texts of T users."""

    numbers: Ids  # (T,) ascending
    texts: pa.Array  # (T,)

    @classmethod
    def of(cls, texts: Mapping[int, str]) -> UserTexts:
        numbers = np.array(sorted(texts), np.int64)
        array = pa.array([texts[number] for number in numbers.tolist()], pa.large_string())
        return cls(numbers, array)

    @classmethod
    def joined(cls, parts: Iterable[UserTexts | None]) -> UserTexts | None:
        """Join texts that agree; None of integers."""
        given = [part for part in parts if part is not None]
        if not given:
            return None
        numbers, at = np.unique(np.concatenate([p.numbers for p in given]), return_index=True)
        return cls(numbers, pa.concat_arrays([p.texts for p in given]).take(pa.array(at)))

    @classmethod
    def read(cls, path: Path) -> UserTexts | None:
        """Read what ``write`` wrote; None without the file: the ids are integers."""
        if not path.exists():
            return None
        table = pq.read_table(path).combine_chunks()
        texts = table[TEXT].cast(pa.large_string()).combine_chunks()
        return cls(table[NUMBER].to_numpy(), texts)

    def write(self, path: Path) -> None:
        pq.write_table(pa.table({NUMBER: self.numbers, TEXT: self.texts}), path)

    def of_users(self, ids: Ids) -> pa.Array:
        """Return the texts (N,) of known users (N,)."""
        return self.texts.take(pa.array(np.searchsorted(self.numbers, ids)))


class UserIdReader:
    """Reads the column ``user_id`` of a file, or of a folder of parts."""

    def __init__(self, path: Path, schema: FeatureSchema) -> None:
        """Raise DataFileError for texts where a user feature of that name is their index."""
        kinds = tables_of(path)[0].schema
        at = kinds.get_field_index(USER)
        self.text_ids = TEXT_IDS if at >= 0 and is_text(kinds.field(at).type) else None
        self._source = f"{path}: column {USER}"
        if self.text_ids and any(f.name == USER for f in schema.user):
            raise DataFileError(
                f"{self._source}: holds {kinds.field(at).type}, but the schema's feature {USER} "
                "is an integer, the index: name the feature otherwise, such as user_index"
            )
        self._reader, self._texts = IdReader(self.text_ids), dict[int, str]()

    def column(self, array: pa.Array) -> IdColumn:
        """Read a batch; its texts are kept."""
        with refused_collisions():
            read = self._reader.column(array, self._source)
        for number, text in read.texts(np.ones(len(array), np.bool_)).items():
            if (kept := self._texts.setdefault(number, text)) != text:
                raise _collision(self._source, number, kept, text)
        return read

    @property
    def texts(self) -> UserTexts | None:
        """The texts of all users read; None of integers."""
        return None if self.text_ids is None else UserTexts.of(self._texts)


@contextmanager
def refused_collisions() -> Iterator[None]:
    """Raise DataFileError, which knows no store, for a TextCollision."""
    try:
        yield
    except TextCollision as error:
        raise DataFileError(str(error).partition(": it cannot")[0]) from error


def check_agreement(
    source: str, ours: UserTexts | None, other: str, theirs: UserTexts | None
) -> None:
    """Raise DataFileError where the ids of two files cannot be compared."""
    if ours is None or theirs is None:
        if ours is not theirs:
            held = [f"holds {'integers' if t is None else 'texts'}" for t in (ours, theirs)]
            raise DataFileError(
                f"{source}: column {USER}: {held[0]}, and that of {other} {held[1]}; "
                "write both as one kind"
            )
        return
    common, at, there = np.intersect1d(
        ours.numbers, theirs.numbers, assume_unique=True, return_indices=True
    )
    pair = ours.texts.take(pa.array(at)), theirs.texts.take(pa.array(there))
    unequal = pc.not_equal(*pair).to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(unequal)[:1].tolist():
        raise _collision(f"{other}: column {USER}", int(common[i]), *(t[i].as_py() for t in pair))


def _collision(source: str, number: int, kept: str, given: str) -> DataFileError:
    return DataFileError(f"{source} {given!r} has the number {number}, which is that of {kept!r}")
