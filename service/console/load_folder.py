"""Keeps load tests in a folder: plan, output, outcome and report of each; one runs at a time.

The workers of a service share it: any of them shows and stops the load test that another started.
The lock is held by the worker that runs it and by its child, so it is free when both have ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import sleep, strftime, time
from typing import Any, Literal

import orjson

from service.errors import InvalidField
from service.private_directory import make_private
from service.settings import PREFIX

Kind = Literal["run", "search"]
CONFIRMATION = "load this service"  # to be typed
MOST_RATE, MOST_S, MOST_CANDIDATES = 2000.0, 300, 1000
SEARCH_STEPS = 12  # of a search, at most that many times its duration
MARGIN_S = 60.0  # start, warm-up and report
MOST_LINES, MOST_LINE, MOST_OUTPUT = 200, 400, 65_536  # shown of the output
KEPT_REPORTS = 10
TRIES, AGAIN_S = 5, 0.02  # for the lock, which a look at it takes for a moment
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")
OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
OWN = 0o600
PLAN, CHILD, OUTPUT, STOP, END, REPORT = (
    *("plan.json", "child.json", "output.txt", "stop", "end.json", "report.html"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a form asks for."""

    kind: Kind
    rate: float  # requests per second; of a search, to begin with
    seconds: int  # of a search: of each step
    candidates: int

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Plan:
        """Read a form. InvalidField, also where the confirmation was not typed."""
        kind = form.get("kind", "run")
        if kind not in ("run", "search"):
            raise InvalidField("kind: should be run or search")
        if form.get("confirmation", "").strip().lower() != CONFIRMATION:
            raise InvalidField(f"confirmation: type “{CONFIRMATION}”")
        return cls(
            "run" if kind == "run" else "search",
            _number(form, "rate", 1, MOST_RATE),
            int(_number(form, "seconds", 1, MOST_S)),
            int(_number(form, "candidates", 1, MOST_CANDIDATES)),
        )

    @property
    def limit_s(self) -> float:
        """After which the child is ended."""
        steps = SEARCH_STEPS if self.kind == "search" else 1
        return steps * (self.seconds + 5.0) + MARGIN_S


@dataclass(frozen=True, slots=True)
class LoadRun:
    """One load test, while it runs and afterwards."""

    name: str
    plan: Plan
    who: str
    began: float
    ended: float | None = None
    outcome: str | None = None  # how it ended
    has_report: bool = False
    lines: list[str] = field(default_factory=list)


class LoadFolder:
    """The load tests of a service. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, plan: Plan, who: str) -> tuple[Path, int] | None:
        """Make the folder of a load test and take the lock, a descriptor; None while one runs.

        OSError.
        """
        make_private(self._folder, f"{PREFIX}PRIVATE")
        lock = self._lock(TRIES)
        if lock is None:
            return None
        try:
            self._drop_old()
            folder = self._folder / f"{strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}"
            folder.mkdir(0o700)
            _write(folder / PLAN, {"plan": asdict(plan), "who": who, "began": time()})
        except BaseException:
            os.close(lock)
            raise
        return folder, lock

    def latest(self) -> list[LoadRun]:
        """The load test that runs, or the last one, with its output; and those before it."""
        found = list[LoadRun]()
        for folder in self._runs():
            begun = _read(folder / PLAN)
            if begun is not None:
                end = _read(folder / END) or ({} if found else self._left(folder))
                plan, report = Plan(**begun.pop("plan")), (folder / REPORT).is_file()
                lines = [] if found else _lines(folder / OUTPUT)
                one = LoadRun(folder.name, plan, **begun, **end, has_report=report, lines=lines)
                found.append(one)
        return found

    def stop(self) -> None:
        """Ask the worker that runs the latest load test to end it."""
        for folder in self._runs()[:1]:
            (folder / STOP).touch(OWN)

    def report(self, name: str) -> bytes | None:
        """Read the report of a load test; None without one."""
        for folder in self._runs():
            if folder.name == name and (folder / REPORT).is_file():
                return (folder / REPORT).read_bytes()
        return None

    def _left(self, folder: Path) -> dict[str, Any]:
        """How a load test without an outcome has ended: not, or with the worker that ran it, whose
        child is ended here."""
        child = _read(folder / CHILD)
        orphan = child is not None and not _lives(child["by"])
        lock = self._lock(TRIES if orphan else 1)
        if lock is not None:
            os.close(lock)
        elif child is None or not orphan:
            return {}
        else:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child["pid"], signal.SIGKILL)
        if not (folder / END).exists():  # it may have ended meanwhile
            ended(folder, "ended, because its process did")
        return _read(folder / END) or {}

    def _lock(self, tries: int) -> int | None:
        descriptor = os.open(self._folder / "lock", OPEN, OWN)
        for left in reversed(range(tries)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if left:
                    sleep(AGAIN_S)
        os.close(descriptor)
        return None

    def _runs(self) -> list[Path]:
        """Folders of load tests, the latest first."""
        if not self._folder.is_dir():
            return []
        named = [one for one in self._folder.iterdir() if NAME.fullmatch(one.name)]
        return sorted(named, reverse=True)

    def _drop_old(self) -> None:
        for old in self._runs()[KEPT_REPORTS - 1 :]:
            with suppress(OSError):
                for file in old.iterdir():
                    file.unlink()
                old.rmdir()


def begun(folder: Path, pid: int) -> None:
    """Write down the child of a load test."""
    _write(folder / CHILD, {"pid": pid, "by": os.getpid()})


def wants_stop(folder: Path) -> bool:
    return (folder / STOP).exists()


def ended(folder: Path, outcome: str) -> None:
    """Write down how a load test has ended."""
    _write(folder / END, {"ended": time(), "outcome": outcome})


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _write(file: Path, content: object) -> None:
    beside = file.with_suffix(".new")
    beside.write_bytes(orjson.dumps(content))
    beside.replace(file)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found


def _lines(file: Path) -> list[str]:
    """The end of the output, as text."""
    try:
        with file.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - MOST_OUTPUT))
            found = output.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    plain = [COLOUR.sub("", line).rstrip()[:MOST_LINE] for line in found[-MOST_LINES:]]
    return ["".join(c if c.isprintable() else "�" for c in line) for line in plain]


def _number(form: Mapping[str, str], name: str, least: float, most: float) -> float:
    try:
        found = float(form.get(name, ""))
    except ValueError:
        found = float("nan")
    if not least <= found <= most:
        raise InvalidField(f"{name}: should be a number from {least:g} to {most:g}")
    return found
