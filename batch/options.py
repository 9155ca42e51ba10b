"""What a run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from batch.inputs.columns import Naming
from batch.job import Cut
from batch.sizes import MEMORY


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for."""

    bundle: Path
    store: str
    input: str
    output: str
    workers: int  # 0: as many as the engine finds room for
    naming: Naming = field(default_factory=Naming)
    cut: Cut = field(default_factory=Cut)
    top_k: int | None = None
    max_rejects: int = 0
    max_candidates: int = 100_000
    memory: int = MEMORY  # bytes of each process, see ``Sizes``
    part_candidates: int | None = None  # None: as many as are usual and fit
    table_folder: Path | None = None
    work: Path | None = None
    allow_other_processor: bool = False
    clicks: Path | None = None  # a back-test: histories of these, up to each row's time
