"""A service on one core, a generator on the other, and what became of each request."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.analysis.results import LAG_SHARE
from loadtest.analysis.slo import Slo
from loadtest.experiments.search import Search, Unsteady
from loadtest.generator.columns import Bucket
from loadtest.generator.runner import Load, Run, execute
from loadtest.generator.schedule import poisson
from loadtest.generator.workload import Workload
from tests.service.process import Service, serving
from tests.service.world import World

GENERATOR, SERVER = 0, 1  # cores
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Steps(Load):
    """One rate after another, without a pause."""

    steps: tuple[tuple[float, float], ...] = ()  # (requests a second, seconds)

    def schedule(self) -> tuple[NDArray[np.float64], list[tuple[int, dict[str, Any]]]]:
        times, begin, random = [], 0.0, np.random.default_rng(self.seed)
        for rate, seconds in self.steps:
            times.append(poisson(random, rate, seconds) + begin)
            begin += seconds
        whole = np.concatenate(times)
        return whole, self.workload.documents(len(whole), self.seed)


@dataclass(frozen=True, eq=False)
class Outcome:
    """(n,) of each; times in seconds."""

    at: NDArray[np.float64]  # scheduled
    response: NDArray[np.float64]  # from the schedule
    service: NDArray[np.float64]  # from the send
    bucket: NDArray[np.uint8]
    length: NDArray[np.int64]  # candidates
    stages: Mapping[str, NDArray[np.float32]]  # milliseconds
    lag_p99: float
    start: float

    @classmethod
    def of(cls, run: Run) -> Outcome:
        columns = run.columns
        lengths = np.array([run.bank.wire[i].count(b",") for i in range(len(run.bank.wire))])
        return cls(
            columns.at.copy(),
            columns.done - columns.at,
            columns.done - columns.sent,
            columns.bucket.copy(),
            lengths[columns.entry],
            {name: columns.stages[:, i].copy() for i, name in enumerate(run.stage_names)},
            float(np.nanpercentile(columns.attended - columns.at, 99)),
            run.start,
        )

    def between(self, begin: float, end: float) -> Mask:
        return (self.at >= begin) & (self.at < end)

    def ok(self) -> Mask:
        return self.bucket == Bucket.OK

    def shed(self) -> Mask:
        return self.bucket == Bucket.SHED

    def ms(self, q: float, which: Mask) -> float | None:
        """Percentile of the response, in milliseconds."""
        chosen = self.response[which]
        chosen = chosen[~np.isnan(chosen)]
        return round(1e3 * float(np.percentile(chosen, q)), 3) if len(chosen) else None

    def counts(self, which: Mask) -> dict[str, int]:
        return {b.name.lower(): int((self.bucket[which] == b).sum()) for b in Bucket}


@dataclass
class Bench:
    """``run`` drives the one service; ``say`` is told what goes on."""

    service: Service
    world: World
    slo: Slo
    load: Load
    knee: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def run(self, steps: Sequence[tuple[float, float]], seed: int = 1, **changed: Any) -> Outcome:
        """``changed``: fields of the workload; ``stages`` asks for Server-Timing.

        Unsteady when the generator itself was late.
        """
        stages = changed.pop("stages", False)
        load = Steps(
            **{
                **vars(self.load),
                "workload": replace(self.load.workload, **changed),
                "stages": stages,
                "seed": seed,
                "warmup": 0.0,
                "seconds": sum(seconds for _, seconds in steps),
                "rate": max(rate for rate, _ in steps),
                "steps": tuple(steps),
            }
        )
        with execute(load) as run:
            outcome = Outcome.of(run)
        if outcome.lag_p99 > LAG_SHARE * self.slo.limit:
            late = f"lag p99 {1e3 * outcome.lag_p99:.1f} ms"
            raise Unsteady(
                f"the generator was late ({late}), so nothing was measured: free both cores"
            )
        return outcome

    def together(self, *runs: dict[str, Any]) -> list[Outcome]:
        """Several generators at once, on the one core."""
        found: dict[int, Outcome] = {}

        def one(number: int, run: dict[str, Any]) -> None:
            found[number] = self.run(**run)

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(runs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[number] for number in range(len(runs))]

    def find_knee(self, guess: float, say: Any) -> dict[str, Any]:
        load = replace(self.load, rate=guess, seconds=8.0, warmup=1.0)
        found = Search(load, self.slo, precision=0.04, say=say, curve=(1.0,)).run()
        self.knee = found["knee_per_s"]
        return found

    def metric(self, name: str, **labels: str) -> float:
        """As Prometheus would read it."""
        wanted = ",".join(f'{k}="{v}"' for k, v in labels.items())
        line = "^" + re.escape(name + (f"{{{wanted}}}" if wanted else "")) + r" (\S+)$"
        with self.service.client() as client:
            found = re.search(line, client.get("/metrics").text, re.MULTILINE)
        if found is None:
            raise LookupError(f"/metrics has no {name} {labels}")
        return float(found[1])


@contextmanager
def bench(world: World, slo: str, candidates: int, **variables: str) -> Iterator[Bench]:
    """A service with the settings of a server, alone on its core."""
    target = Slo.parse(slo)
    own = {"QIN_TARGET_MS": f"{1e3 * target.limit:g}"}
    with ExitStack() as stack:
        os.sched_setaffinity(0, {SERVER})  # inherited
        service = stack.enter_context(
            serving(world.models, world.store, QIN_LOG_LEVEL="error", **{**own, **variables})
        )
        os.sched_setaffinity(0, {GENERATOR})
        workload = Workload(
            users="1..150", items=world.store, candidates=str(candidates), item_zipf=0.5
        )
        load = Load(url=service.url, workload=workload, generator_cores=(GENERATOR,))
        yield Bench(service, world, target, load)
