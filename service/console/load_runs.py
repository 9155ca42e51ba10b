"""Runs the load test as a child process against this service, one at a time, for a bounded time."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import strftime, time
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.access.hosts import authority
from service.errors import Conflict, InvalidField
from service.observability.background import begin
from service.private_directory import make_private
from service.settings import PREFIX, api_keys, reached_at
from service.state import ServiceState

Kind = Literal["run", "search"]
CONFIRMATION = "load this service"  # to be typed
MOST_RATE, MOST_S, MOST_CANDIDATES = 2000.0, 300, 1000
SEARCH_STEPS = 12  # of a search, at most that many times its duration
MARGIN_S = 60.0  # start, warm-up and report
MOST_ITEMS = 10_000  # ids that requests draw from
MOST_LINES, MOST_LINE = 200, 400
KEPT_REPORTS = 10
WATCH_S = 0.25
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


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


@dataclass(slots=True)
class LoadRun:
    """One load test, while it runs and afterwards."""

    name: str
    plan: Plan
    who: str
    began: float = field(default_factory=time)
    ended: float | None = None
    outcome: str | None = None  # how it ended
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))


class LoadRuns:
    """Starts, watches and ends them; keeps the latest reports."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._folder = state.settings.private / "load"
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False
        self.latest: LoadRun | None = None

    @property
    def is_running(self) -> bool:
        return self.latest is not None and self.latest.ended is None

    async def start(self, plan: Plan, who: str) -> LoadRun:
        """Start a load test. Conflict while one runs, or where the port is not known."""
        settings = self._state.settings
        if self.is_running:
            raise Conflict("a load test is running; stop it first")
        if settings.port == 0:
            raise Conflict(f"{PREFIX}PORT is 0: the console does not know the service's port")
        name = f"{strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}"
        self.latest = LoadRun(name, plan, who)
        self._stopped = False
        try:
            folder = await asyncio.to_thread(self._prepare, name)
            command = self._command(plan, folder)
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._end(f"could not start: {error.strerror}")
            raise Conflict(f"the load test could not start: {error.strerror}") from error
        begin("console", self._watch(self.latest, self._process))
        return self.latest

    def stop(self) -> None:
        """End the load test that runs."""
        self._stopped = True
        self._signal(signal.SIGTERM)

    def reports(self) -> list[str]:
        """List the load tests that have a report, the latest first. Blocks."""
        if not self._folder.is_dir():
            return []
        folders = [one for one in self._folder.iterdir() if NAME.fullmatch(one.name)]
        return sorted((f.name for f in folders if (f / "report.html").is_file()), reverse=True)

    def report(self, name: str) -> bytes | None:
        """Read a report, of those listed. Blocks."""
        if name not in self.reports():
            return None
        return (self._folder / name / "report.html").read_bytes()

    def _prepare(self, name: str) -> Path:
        """Make the folder of a run, with ids of items to ask for; drop old ones."""
        make_private(self._folder, f"{PREFIX}PRIVATE")
        for old in self.reports()[KEPT_REPORTS - 1 :]:
            with suppress(OSError):
                for file in (self._folder / old).iterdir():
                    file.unlink()
                (self._folder / old).rmdir()
        folder = self._folder / name
        folder.mkdir(0o700)
        active = self._state.registry.active
        ids = active.table.ids() if active is not None else np.empty(0, np.int64)
        if len(ids) > MOST_ITEMS:
            ids = np.random.default_rng().choice(ids, MOST_ITEMS, replace=False)
        pq.write_table(pa.table({"item_id": ids}), folder / "items.parquet")
        return folder

    def _command(self, plan: Plan, folder: Path) -> list[str]:
        settings = self._state.settings
        url = f"http://{authority(reached_at(settings.host))}:{settings.port}"
        options = {
            "--rate": f"{plan.rate:g}",
            "--duration": f"{plan.seconds}s",
            "--candidates": str(plan.candidates),
            "--items": f"{folder / 'items.parquet'}:item_id",
            "--out": str(folder),
        }
        if plan.kind == "search":
            options["--slo"] = f"p99={settings.target_ms:g}ms"
        pairs = [word for pair in options.items() for word in pair]
        own = ["--allow-remote"]  # it is the service's own address
        return [sys.executable, "-m", "loadtest", plan.kind, url, *pairs, *own]

    def _environment(self) -> dict[str, str]:
        """This process's, without the service's settings, which hold secrets."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        keys = api_keys(self._state.settings.api_keys)
        key = {"QIN_API_KEY": keys[0][1]} if keys else {}
        return {**kept, "NO_COLOR": "1", "COLUMNS": "100", **key}

    async def _watch(self, run: LoadRun, process: asyncio.subprocess.Process) -> None:
        """Read its output and bound its time; a stop of the service ends it."""
        deadline = run.began + run.plan.limit_s
        reading = begin("console", self._read(run, process))
        outcome = None
        try:
            while process.returncode is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), WATCH_S)
                if time() > deadline and outcome is None:
                    outcome = f"ended after {run.plan.limit_s:.0f} s"
                    self._signal(signal.SIGKILL)
                if self._state.readiness.draining:
                    outcome = "ended, because the service stops"
                    self._signal(signal.SIGKILL)
            await reading
        finally:
            self._signal(signal.SIGKILL)  # generators that it left
            code = process.returncode
            stopped = "stopped" if self._stopped else None
            words = {0: "done", 1: "done; a target was missed"}
            self._end(stopped or outcome or words.get(code or 0, f"failed (exit code {code})"))

    async def _read(self, run: LoadRun, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None, "it is a pipe"
        while line := await process.stdout.readline():
            text = COLOUR.sub("", line.decode(errors="replace")).rstrip()
            run.lines.append("".join(c if c.isprintable() else "�" for c in text[:MOST_LINE]))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _end(self, outcome: str) -> None:
        if self.latest is not None:
            self.latest.ended, self.latest.outcome = time(), outcome


def _number(form: Mapping[str, str], name: str, least: float, most: float) -> float:
    try:
        found = float(form.get(name, ""))
    except ValueError:
        found = float("nan")
    if not least <= found <= most:
        raise InvalidField(f"{name}: should be a number from {least:g} to {most:g}")
    return found
