"""Configuration of generator processes: one JSON file in the run's scratch folder."""

from __future__ import annotations

import mmap
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from loadtest.generator.columns import Columns

CONFIG, COLUMNS, STOP, ANSWERS = "generator.json", "columns", "stop", "answers.{number}"


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Addresses, limits and what to record. Times in seconds."""

    folder: str
    host: str  # an address
    port: int
    requests: int
    events_host: str | None = None  # for clicks, if not ``host``
    events_port: int = 0
    generators: int = 1
    cores: tuple[int, ...] = ()
    connections: int = 1024
    preopen: int = 8
    keep_alive_s: float = 4.0
    timeout_s: float = 5.0
    stages: bool = False
    keep_answers: bool = False
    ids: str | None = None  # the service's kind, if known
    stall_every: int = 0  # self-check only: after each so many sends …
    stall_s: float = 0.0  # … block the generator for so long

    def write(self) -> None:
        Path(self.folder, CONFIG).write_bytes(orjson.dumps(asdict(self)))
        Path(self.folder, STOP).write_bytes(b"\0")

    @classmethod
    def read(cls, folder: Path) -> GeneratorConfig:
        content = orjson.loads((folder / CONFIG).read_bytes())
        return cls(**{**content, "cores": tuple(content["cores"])})

    def columns(self, *, create: bool = False) -> Columns:
        path = Path(self.folder, COLUMNS)
        return Columns(path, self.requests, stages=self.stages, create=create)

    def answers(self, number: int) -> Path:
        return Path(self.folder, ANSWERS.format(number=number))

    def stop_flag(self) -> mmap.mmap:
        """Map one shared byte; non-zero stops all sending."""
        with Path(self.folder, STOP).open("r+b") as file:
            return mmap.mmap(file.fileno(), 1)
