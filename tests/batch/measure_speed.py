"""Measures rates of runs against the graphs alone: ``python -m tests.batch.measure_speed --json``.

At the paper's sizes, lists of 512. The graphs alone: as many processes at once as workers, each the
history tower and the ranker on the same lists in the same chunks, from arrays. Rates of runs are
differences of a longer and a shorter one, so starting and loading are apart. ``_cpu``: the same by
processor time, which other programs of the machine disturb less. Bars: a run at least
.9 of the graphs alone; rows in random order at most 1.5 times those in order; Ray at least .85 of
processes of this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, Any

import numpy as np
import orjson
import pyarrow as pa
import typer

from batch.job import Cut
from feature_store.schema import FeatureSchema
from model_export.bundle.bundle import Bundle
from model_export.bundle.runtime import FoldedModel
from tests.batch.command import line
from tests.batch.inputs import Lists, write
from tests.service.world import World, make_rows, make_world
from training.qin import QINSizes

LENGTH = 512
ITEMS, USERS = 2000, 500
BARS = {"of_graphs": 0.9, "random_to_ordered": 1.5, "ray_to_local": 0.85}


def graphs_alone(bundle: Path, lists: int) -> tuple[float, float]:
    """Candidates per second of this process, and per second of processor time."""
    model = FoldedModel(Bundle.open(bundle))
    random = np.random.default_rng(0)
    items = model.items(make_rows(model.schema, ITEMS, random))
    chunk = Cut().chunk
    spans = [(start, start + chunk) for start in range(0, LENGTH, chunk)]
    began = spent = 0.0
    for number in range(-3, lists):  # the first ones warm up
        if number == 0:
            began, spent = perf_counter(), process_time()
        length = 1 + number % model.schema.history_length
        chosen = random.integers(0, ITEMS, LENGTH)
        history = model.history(items.vector.take(random.integers(0, ITEMS, length), 0))
        for start, end in spans:
            model.rank(items.take(chosen[start:end]), history)
    scored = lists * LENGTH
    return scored / (perf_counter() - began), scored / (process_time() - spent)


def all_graphs(bundle: Path, lists: int, workers: int) -> Rates:
    """Candidates per second of ``workers`` processes at once, and of processor time of one."""
    words = [sys.executable, "-m", "tests.batch.measure_speed", "--graphs", str(bundle)]
    words += ["--lists", str(lists // workers)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(workers)]
    found = np.array([process.communicate()[0].split() for process in running], np.float64)
    return found[:, 0].sum(), found[:, 1].mean()


def seconds_of(world: World, source: Path, output: Path, *options: str) -> Rates:
    """Seconds, and seconds of processor time of all its processes."""
    command, began, before = line(world, source, output, *options), perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    seconds, after = perf_counter() - began, os.times()
    spent = after.children_user + after.children_system
    return seconds, spent - before.children_user - before.children_system


Rates = tuple[float, float]


class Measure:
    """One world, and its inputs."""

    def __init__(self, folder: Path, lists: int, workers: int) -> None:
        self.world = make_world(
            folder, FeatureSchema.microlens(), QINSizes(), items=ITEMS, users=USERS
        )
        random = np.random.default_rng(2)
        users = list(self.world.users)
        self.lists = Lists(
            [users[n % len(users)] for n in range(lists)],
            [random.choice(self.world.ids, LENGTH) for _ in range(lists)],
        )
        self.folder, self.workers, self._runs = folder, workers, 0

    def rate(self, *options: str) -> Rates:
        """Candidates per second of lists, and of processor time, without the start."""
        few, many = len(self.lists.users) // 5, len(self.lists.users)
        short, long = (self.run(self.lists.table().slice(0, n), *options) for n in (few, many))
        scored = (many - few) * LENGTH
        return scored / (long[0] - short[0]), scored / (long[1] - short[1])

    def run(self, table: pa.Table, *options: str) -> Rates:
        self._runs += 1
        source = write(table, self.folder / f"{self._runs}.parquet")
        candidates = table.num_rows * (LENGTH if "item_ids" in table.column_names else 1)
        part = str(max(LENGTH, candidates // 16))  # all workers have some to do
        output = self.folder / f"out-{self._runs}"
        workers = ("--workers", str(self.workers), "--part-candidates", part)
        return seconds_of(self.world, source, output, *workers, *options)


def main(
    lists: Annotated[int, typer.Option(help="Of 512 candidates.")] = 400,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    ray: Annotated[bool, typer.Option("--ray", help="Ray, too.")] = False,
    graphs: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    if graphs is not None:
        print(*graphs_alone(graphs, lists))
        return
    with tempfile.TemporaryDirectory(prefix="world-") as name:
        measure = Measure(Path(name), lists, workers)
        found: dict[str, Any] = {"workers": workers, "lists": lists, "length": LENGTH}
        alone = all_graphs(measure.world.bundle.path, lists, workers)
        local = measure.rate()
        again = all_graphs(measure.world.bundle.path, lists, workers)
        alone = tuple(np.mean([alone, again], 0))
        found |= {"graphs_per_second": round(alone[0]), "local_per_second": round(local[0])}
        found |= _ratios("of_graphs", local, alone)
        rows = Lists(measure.lists.users[: lists // 2], measure.lists.items[: lists // 2])
        order = np.random.default_rng(3).permutation(sum(map(len, rows.items)))
        ordered, mixed = measure.run(rows.rows()), measure.run(rows.rows(order))
        found |= {"ordered_seconds": round(ordered[0], 2), "random_seconds": round(mixed[0], 2)}
        found |= _ratios("random_to_ordered", mixed, ordered)
        if ray:
            on_ray = measure.rate("--on", "ray")
            found["ray_per_second"] = round(on_ray[0])
            found["ray_to_local"] = round(on_ray[0] / local[0], 3)
    found["bars"] = BARS
    print(orjson.dumps(found).decode() if as_json else found)
    kept = found["of_graphs"] >= BARS["of_graphs"]
    kept &= found["random_to_ordered"] <= BARS["random_to_ordered"]
    kept &= found.get("ray_to_local", 1.0) >= BARS["ray_to_local"]
    raise typer.Exit(not kept)


def _ratios(name: str, one: Rates, other: Rates) -> dict[str, float]:
    return {
        name: round(float(one[0] / other[0]), 3),
        f"{name}_cpu": round(float(one[1] / other[1]), 3),
    }


if __name__ == "__main__":
    typer.run(main)
