"""The units of a run: each is done by one worker, writes one file, and may be done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["lists", "bucket", "rows"]


@dataclass(frozen=True, slots=True)
class Unit:
    """``lists``: score a part; ``bucket``: score a bucket of users; ``rows``: put the scores of a
    part's rows together."""

    kind: Kind
    number: int
    start: int = 0  # input rows
    end: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker did."""

    unit: Unit
    candidates: int
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)
    processor: str = ""  # kind
