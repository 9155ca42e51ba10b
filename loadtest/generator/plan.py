"""What the parent tells its generators: one JSON file in the run's scratch folder."""

from __future__ import annotations

import mmap
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from loadtest.generator.columns import Columns

PLAN, COLUMNS, STOP, ANSWERS = "plan.json", "columns", "stop", "answers.{number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to send, how, and what to keep. Times in seconds."""

    folder: str
    host: str  # an address
    port: int
    requests: int
    events_host: str | None = None  # where clicks go, if elsewhere
    events_port: int = 0
    generators: int = 1
    cores: tuple[int, ...] = ()
    connections: int = 1024
    preopen: int = 8
    keep_alive_s: float = 4.0
    timeout_s: float = 5.0
    stages: bool = False
    keep_answers: bool = False
    stall_every: int = 0  # self-check only: after so many sends …
    stall_s: float = 0.0  # … the generator is held up for so long

    def write(self) -> None:
        Path(self.folder, PLAN).write_bytes(orjson.dumps(asdict(self)))
        Path(self.folder, STOP).write_bytes(b"\0")

    @classmethod
    def read(cls, folder: Path) -> Plan:
        content = orjson.loads((folder / PLAN).read_bytes())
        return cls(**{**content, "cores": tuple(content["cores"])})

    def columns(self, *, create: bool = False) -> Columns:
        path = Path(self.folder, COLUMNS)
        return Columns(path, self.requests, stages=self.stages, create=create)

    def answers(self, number: int) -> Path:
        return Path(self.folder, ANSWERS.format(number=number))

    def stop_flag(self) -> mmap.mmap:
        """One shared byte; anything but zero means: send nothing more."""
        with Path(self.folder, STOP).open("r+b") as file:
            return mmap.mmap(file.fileno(), 1)
