"""What a run does: the recipe, on which every byte of the output depends, and where things are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import orjson

Layout = Literal["rows", "lists"]
FORMAT = 3
PATIENCE_S = 60.0
Stamp = tuple[int, int] | None  # bytes, nanoseconds of the last change; None: there is no file
Stamps = Mapping[Path, Stamp]  # of files
SHORT = 12  # digits of a digest in names of files


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of the input mean."""

    layout: Layout  # rows: one candidate each; lists: a user's candidates each
    user: str
    item: str  # ids, or lists of ids
    history: str | None = None  # of a log of requests: in place of the stored one
    context: tuple[str, ...] = ()  # features of candidates, instead of the stored ones
    features: tuple[str, ...] = ()  # request features
    time: str | None = None  # with clicks alone
    kept: tuple[str, ...] = ()  # passed through

    @property
    def read(self) -> tuple[str, ...]:
        """Columns that scoring reads."""
        own = (name for name in (self.history, self.time) if name is not None)
        return (self.user, self.item, *self.context, *self.features, *own)

    @property
    def passed(self) -> tuple[str, ...]:
        """Columns of the input that the output has."""
        return tuple(dict.fromkeys((self.user, self.item, *self.kept)))


@dataclass(frozen=True, slots=True)
class Cut:
    """How lists are cut into chunks: as a service with these settings does."""

    chunk: int = 128
    min_chunk: int = 64
    threads_as: int = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the bytes of the output, besides the contents of the store."""

    input: str  # digest of names and contents
    rows: int
    version: str
    bundle: str  # digest of its manifest
    columns: Columns
    cut: Cut
    top_k: int | None
    max_candidates: int
    part_candidates: int  # at most, of a part of more than one row
    memory: int  # bytes; parts of wide columns are smaller by it
    buckets: int  # of rows layout: files that the rows are partitioned into
    clicks: str | None  # digest
    processor: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    edges: tuple[int, ...] = (0,)  # input rows where parts begin, and the end; by the survey
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Hexadecimal digest of everything here."""
        return sha256(self.json()).hexdigest()

    def json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    def parts(self) -> list[tuple[int, int]]:
        """Input rows [start, end) of each part."""
        return list(pairwise(self.edges))

    def part_name(self, start: int, end: int) -> str:
        return f"part-{self.input[:SHORT]}-{start:012d}-{end:012d}-{self.version}.parquet"

    def differences(self, other: Mapping[str, Any]) -> Iterator[str]:
        """Yield, for each value that ``other``, a recipe's JSON, has differently, both."""
        mine = orjson.loads(self.json())
        for name in sorted(mine.keys() | other.keys()):
            if mine.get(name) != other.get(name):
                yield f"{name} was {other.get(name)}, and is {mine.get(name)}"


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker is given."""

    recipe: Recipe
    input: str
    output: str
    work: str  # folder of what is between input and output
    bundle: Path
    store: str
    table_folder: Path | None  # None: each process has an item table of its own
    files: Stamps = field(default_factory=dict)  # of the input, as it was surveyed
    host: str = ""  # that surveyed it
    patience_s: float = PATIENCE_S  # for a store that does not answer
    other_processors: bool = False  # whether workers of another kind may score
