"""Runs a load: prepares schedule and requests, starts generators, waits, collects the rows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtest.generator.columns import STAGES, Columns
from loadtest.generator.config import GeneratorConfig
from loadtest.generator.open_files import fitting, hard_limit
from loadtest.generator.poller import clock
from loadtest.generator.replay import read_log
from loadtest.generator.schedule import Arrivals, Times
from loadtest.generator.workload import Bank, Destination, Workload
from loadtest.target import Target

if TYPE_CHECKING:
    from feature_store.options import IdKind

LEAD = 0.15  # seconds from sending generators the start time to that time
MOST_CORES = 65_536
READY = 60.0  # seconds for a generator to load the bank and connect


class RunError(RuntimeError):
    """A run that could not be made."""


@dataclass(frozen=True)
class Load:
    """All settings of a run. Times in seconds, ``rate`` in requests a second."""

    url: str
    rate: float = 100.0
    seconds: float = 30.0
    warmup: float = 2.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    seed: int = 1
    workload: Workload = field(default_factory=Workload)
    replay: Path | None = None
    speed: float = 1.0
    timeout: float = 5.0
    connections: int = 1024
    keep_alive: float = 4.0
    generators: int = 1
    generator_cores: tuple[int, ...] = ()
    stages: bool = False
    keep_answers: bool = False
    allow_remote: bool = False
    events_url: str | None = None  # for clicks, if not ``url``
    api_key: str = ""
    events_key: str = ""  # for clicks; default: the API key
    stall_every: int = 0
    stall_s: float = 0.0
    ids: IdKind | None = None  # the service's, if known: ``id_kind``

    def schedule(self) -> tuple[Times, list[tuple[int, dict[str, Any]]]]:
        """Compute send times, warm-up included, and the bodies to send in turn."""
        if self.replay is not None:
            return read_log(self.replay, speed=self.speed, ids=self.ids)
        times = self.arrivals.times(self.rate, self.seconds, self.seed) + self.warmup
        if self.warmup:
            early = Arrivals().times(self.rate, self.warmup, self.seed + 1)
            times = np.concatenate([early, times])
        if not times.size:
            raise RunError(f"rate {self.rate:g}/s for {self.seconds:g} s schedules no request")
        return times, self.workload.documents(times.size, self.seed, self.ids)

    def within_open_files(self) -> Load:
        """Lower ``connections`` to what the hard limit of open files allows."""
        generators = max(self.generators, len(self.generator_cores))
        lanes = 1 if self.events_url is None else 2
        allowed = fitting(max(self.connections, generators), generators, lanes)
        if allowed < generators:
            raise RunError(f"ulimit -Hn {hard_limit()}: too few open files for connections")
        return replace(self, connections=min(self.connections, allowed))


@dataclass(frozen=True)
class Run:
    """A finished run: a row per scheduled request, warm-up included in ``columns``."""

    load: Load
    columns: Columns
    bank: Bank
    first: int  # the first row after the warm-up
    started: datetime
    start: float  # the run's zero on ``clock``
    versions: list[str]
    stage_names: list[str]
    answers: list[Path]
    generators: list[dict[str, Any]]
    interrupted_at: float | None

    @property
    def measured(self) -> slice:
        return slice(self.first, None)

    @property
    def count(self) -> int:
        return self.columns.requests - self.first

    @property
    def span(self) -> float:
        """Seconds over which the measured requests were scheduled."""
        if self.load.replay is not None:
            return max(float(self.columns.at[-1]), 1e-9)
        return self.load.seconds

    def response(self) -> NDArray[np.float64]:
        """(n,) seconds from the schedule, NaN without an answer."""
        return (self.columns.done - self.columns.at)[self.measured]

    def service(self) -> NDArray[np.float64]:
        """(n,) seconds from the send: uncorrected, as a closed-loop tool reports."""
        return (self.columns.done - self.columns.sent)[self.measured]

    def lag(self) -> NDArray[np.float64]:
        """(n,) seconds that the generator was late."""
        return (self.columns.attended - self.columns.at)[self.measured]

    def connect(self) -> NDArray[np.float64]:
        return (self.columns.sent - self.columns.attended)[self.measured]


Watcher = Callable[[Columns, float], None]


@contextlib.contextmanager
def execute(
    load: Load,
    *,
    watch: Watcher | None = None,
    background: Callable[[float, threading.Event], None] | None = None,
) -> Iterator[Run]:
    """Run a load and yield its rows; the scratch folder is removed at the end of the block.

    A thread calls ``watch(columns, elapsed)`` twice a second; another runs ``background(start,
    over)`` during the load. Ctrl-C stops sending and yields the rows so far.
    """
    load = load.within_open_files()
    target = Target.parse(load.url, allow_remote=load.allow_remote)
    clicks = target
    if load.events_url is not None:
        clicks = Target.parse(load.events_url, allow_remote=load.allow_remote)
    times, documents = load.schedule()
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        config = _config(load, target, clicks, folder, times.size)
        bank = Bank.encode(
            documents,
            authority=target.authority,
            prefix=target.prefix,
            stages=load.stages,
            headers={**load.workload.headers, **_bearer(load.api_key)},
            events=Destination(
                clicks.authority,
                clicks.prefix,
                {**load.workload.headers, **_bearer(load.events_key or load.api_key)},
            ),
        )
        columns = config.columns(create=True)
        columns.at[:] = times
        columns.entry[:] = np.arange(times.size) % len(bank.wire)
        bank.write(Path(folder))
        config.write()
        first = int(np.searchsorted(times, load.warmup)) if load.replay is None else 0
        processes = _spawn(config)
        try:
            yield _drive(load, config, bank, columns, first, processes, watch, background)
        finally:
            for process in processes:
                process.kill()
                process.communicate()


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _config(
    load: Load, target: Target, clicks: Target, folder: str, requests: int
) -> GeneratorConfig:
    for core in load.generator_cores:
        if core >= MOST_CORES:  # of which fewer can be used, a generator says
            raise RunError(f"generator: core {core}: not one that this process may use")
    generators = max(load.generators, len(load.generator_cores))
    return GeneratorConfig(
        folder=folder,
        host=target.address,
        port=target.port,
        requests=requests,
        events_host=None if clicks is target else clicks.address,
        events_port=clicks.port,
        generators=generators,
        cores=load.generator_cores,
        connections=max(load.connections, generators),
        keep_alive_s=load.keep_alive,
        timeout_s=load.timeout,
        stages=load.stages,
        keep_answers=load.keep_answers,
        ids=load.ids,
        stall_every=load.stall_every,
        stall_s=load.stall_s,
    )


def _spawn(config: GeneratorConfig) -> list[subprocess.Popen[str]]:
    """Start generators in their own sessions, so that Ctrl-C reaches only this process."""
    return [
        subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "loadtest.generator.process", config.folder, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for number in range(config.generators)
    ]


def _drive(
    load: Load,
    config: GeneratorConfig,
    bank: Bank,
    columns: Columns,
    first: int,
    processes: Sequence[subprocess.Popen[str]],
    watch: Watcher | None,
    background: Callable[[float, threading.Event], None] | None,
) -> Run:
    for process in processes:
        assert process.stdout is not None
        if (said := process.stdout.readline()) != "ready\n":
            raise RunError(f"generator: {said.strip() or 'did not start; see its output above'}")
    start, started = clock() + LEAD, datetime.now(UTC)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{start!r}\n")
        process.stdin.flush()
    over = threading.Event()
    threads = []
    if watch is not None:
        threads.append(threading.Thread(target=_watch, args=(watch, columns, start, over, config)))
    if background is not None:
        threads.append(threading.Thread(target=background, args=(start, over)))
    for thread in threads:
        thread.start()
    interrupted_at = _wait(config, processes, start)
    over.set()
    for thread in threads:
        thread.join()
    summaries = [_summary(process) for process in processes]
    versions, stage_names = _merge(columns, summaries)
    return Run(
        load=load,
        columns=columns,
        bank=bank,
        first=first,
        started=started,
        start=start,
        versions=versions,
        stage_names=stage_names,
        answers=[config.answers(number) for number in range(config.generators)],
        generators=summaries,
        interrupted_at=interrupted_at,
    )


def _wait(
    config: GeneratorConfig, processes: Sequence[subprocess.Popen[str]], start: float
) -> float | None:
    """Wait for all generators; return the time of Ctrl-C, if any."""
    interrupted_at = None
    while any(process.poll() is None for process in processes):
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            if interrupted_at is not None:
                raise
            interrupted_at = clock() - start
            config.stop_flag()[0] = 1
    return interrupted_at


def _watch(
    watch: Watcher, columns: Columns, start: float, over: threading.Event, config: GeneratorConfig
) -> None:
    """Run ``watch`` at the lowest priority on the generators' cores, not to disturb the service."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        if config.cores:
            os.sched_setaffinity(threading.get_native_id(), config.cores)
    while not over.wait(0.5):
        watch(columns, clock() - start)
    watch(columns, clock() - start)


def _summary(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.read()
    if process.returncode != 0 or not line:
        raise RunError(f"a generator exited with code {process.returncode}; see its output above")
    summary: dict[str, Any] = orjson.loads(line)
    return summary


def _merge(columns: Columns, summaries: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Renumber versions and stages consistently over all generators, in place."""
    versions = sorted({name for summary in summaries for name in summary["versions"]})
    stages = list(dict.fromkeys(name for summary in summaries for name in summary["stages"]))
    stages = stages[:STAGES]
    for number, summary in enumerate(summaries):
        rows = slice(number, None, len(summaries))
        numbering = np.array([*map(versions.index, summary["versions"]), -1], np.int16)
        columns.version[rows] = numbering[columns.version[rows]]
        if columns.stages.size:
            local = columns.stages[rows].copy()
            columns.stages[rows] = np.nan
            for place, name in enumerate(summary["stages"]):
                if name in stages:
                    columns.stages[rows, stages.index(name)] = local[:, place]
    return versions, stages
