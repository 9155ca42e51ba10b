"""What loads and switches cost those that are served: ``python -m tests.service.measure_swaps``.

Two versions of random weights, in the demo's sizes or, with ``--paper``, the paper's; service and
generator on a core each. ``loadtest swap`` unloads, loads and activates one after the other under
load. Before each run the same one without any (A/A): a stand-in answers its commands after the time
that a load takes, so that the ratio of neighbouring stretches is seen where nothing happens.

``--starts N`` instead: seconds from the start of a process until it is ready, in turns with another
checkout (``--against FOLDER``), each on both cores.

Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from feature_store import connect
from feature_store.schema import FeatureSchema
from tests.ports import free_port
from tests.service.process import serving, start, wait_ready
from tests.service.world import make_world, random_published
from training.qin import QINSizes
from training.synthetic.sizes import SynthesisSizes

CORES = sorted(os.sched_getaffinity(0))
USERS = 500
LOAD_S = 0.4  # that the stand-in takes for a load, in the first run
NONE = ("errors", "mixed_versions", "wrong_scores")
MOST_RATIO, MOST_STALL_MS, MOST_FIRST_MS, MOST_MEMORY = 1.3, 10.0, 20.0, 1.05
Json = dict[str, Any]


def prepare(folder: Path, items: int, *, paper: bool) -> None:
    """Make bundles and a store, unless they are there."""
    if (folder / "models").exists():
        return
    demo = QINSizes(attention_width=64, layers=2, rows=2)
    schema = FeatureSchema.microlens() if paper else SynthesisSizes().schema
    sizes = QINSizes() if paper else demo
    make_world(folder, schema, sizes, items=items, users=USERS)
    random_published(schema, sizes, 99, folder / "models", "small-2")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within the block stays there."""
    try:
        os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@contextmanager
def stand_in(load_s: float) -> Iterator[int]:
    """An admin API that does nothing, at a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path.endswith("/load"):
                time.sleep(load_s)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    port = free_port()
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()


def loadtest(command: str, url: str, *options: str) -> Json:
    core = str(CORES[0])
    words = [sys.executable, "-m", "loadtest", command, url, "--json", "--generator-cores", core]
    with on_core(CORES[0]):
        done = subprocess.run([*words, *options], stdout=subprocess.PIPE, check=False)
    found: Json = orjson.loads(done.stdout)
    return found


def measured(
    folder: Path,
    *,
    swaps: int,
    seconds: int,
    rate: float,
    slo: str,
    runs: int,
    control: bool,
    variables: Json,
) -> Json:
    models, store = folder / "models", f"lmdb://{folder / 'store'}"
    asked = ["--items", store, "--users", f"1..{USERS - 1}"]
    alone = {"QIN_MODEL_POLICY": "manual", "QIN_FLEET": "alone"}  # begins with the newest
    variables = {**alone, "QIN_TARGET_MS": "100", **variables}
    each, load_s = [], LOAD_S
    with on_core(CORES[-1]):
        service = start("--bundle", str(models), "--store", store, **variables)
    try:
        wait_ready(service)
        knee = None
        if not rate:
            search = ("--rate", "400", "--slo", slo, "--duration", "5s")
            knee = loadtest("search", service.url, *search, *asked)["knee_per_s"]
            rate = knee / 2
        common = [*asked, "--rate", str(rate), "--duration", f"{seconds}s", "--swaps", str(swaps)]
        common += ["--fresh", "--version", "small-2", "--version", "small-1"]
        oracle = ["--oracle", str(models), "--store", store]
        for _ in range(runs):
            same: Json = {}
            if control:
                with stand_in(load_s) as port:
                    admin = f"http://127.0.0.1:{port}"
                    same = loadtest("swap", service.url, *common, "--admin", admin)["swap"]
            admin, pid = f"http://127.0.0.1:{service.admin_port}", str(service.process.pid)
            result = loadtest("swap", service.url, *common, *oracle, "--admin", admin, "--pid", pid)
            swap = result["swap"]
            if not swap["swaps"]:
                raise SystemExit(f"no switch was made: {swap['refused_activations']}")
            load_s = swap["load_ms"]["p50"] / 1e3
            each.append(
                {
                    "requests": result["requests"],
                    "swaps": swap["swaps"],
                    **{name: swap[name] for name in NONE},
                    "p99_ratio": swap["p99_ratio"],
                    "p99_around_ms": swap["p99_around_swaps_ms"],
                    "p99_without_ms": swap["p99_without_ms"],
                    "p99_ratio_of_none": same.get("p99_ratio"),
                    "p99_of_none_ms": [
                        same.get("p99_around_swaps_ms"),
                        same.get("p99_without_ms"),
                    ],
                    "load_ms": swap["load_ms"],
                    "stall_ms": swap["load_stall_ms"],
                    "first_answer_ms": swap["activation_to_first_answer_ms"],
                    "memory_ratio": swap["memory_ratio"],
                    "memory_mib": [swap["resident_mib_after_5"], swap["resident_mib_after_all"]],
                    "refused": swap["refused_activations"][:3],
                }
            )
    finally:
        service.stop()
        service.remove()
    return {
        "knee_per_s": knee,
        "rate_per_s": rate,
        "seconds": seconds,
        "swaps_wanted": swaps,
        "p99_ratio": float(np.median([one["p99_ratio"] for one in each])),
        "p99_ratio_of_none": float(np.median([one["p99_ratio_of_none"] for one in each]))
        if control
        else None,
        "worst_stall_ms": max(one["stall_ms"]["max"] for one in each),
        "worst_first_answer_ms": max(one["first_answer_ms"]["max"] for one in each),
        "worst_memory_ratio": max(one["memory_ratio"] or 0.0 for one in each),
        "each": each,
    }


def meets_bars(found: Json) -> bool:
    whole = all(one["swaps"] == found["swaps_wanted"] for one in found["each"])
    none = all(one[name] == 0 for one in found["each"] for name in NONE)
    return (
        whole
        and none
        and found["p99_ratio"] <= MOST_RATIO
        and found["worst_stall_ms"] <= MOST_STALL_MS
        and found["worst_first_answer_ms"] <= MOST_FIRST_MS
        and found["worst_memory_ratio"] <= MOST_MEMORY
    )


def starts(folder: Path, count: int, against: Path | None, variables: Json) -> Json:
    models, store = folder / "models", f"lmdb://{folder / 'store'}"
    there = {} if against is None else {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(against.resolve())}
    took: dict[str, list[float]] = {"ours": [], **({} if against is None else {"theirs": []})}
    for _ in range(count):
        for whose, seconds in took.items():
            began = perf_counter()
            more = there if whose == "theirs" else {}
            with serving(models, store, QIN_MODEL_POLICY="pin:small-1", **variables, **more):
                seconds.append(perf_counter() - began)
    figures: Json = {f"{whose}_s": [round(s, 2) for s in took[whose]] for whose in took}
    if against is not None:
        figures["ratio"] = float(np.median(took["ours"]) / np.median(took["theirs"]))
    return figures


async def count(folder: Path) -> int:
    store = await connect(f"lmdb://{folder / 'store'}")
    try:
        return await store.count_items()
    finally:
        await store.close()


def main(
    items: Annotated[int, typer.Option(help="In the store.")] = 2000,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's sizes.")] = False,
    swaps: Annotated[int, typer.Option(help="Of a run.")] = 100,
    seconds: Annotated[int, typer.Option(help="Of a run; 7 of 10 have switches.")] = 86,
    rate: Annotated[float, typer.Option(help="Requests/s; 0: half the knee, searched.")] = 0.0,
    slo: Annotated[str, typer.Option(help="Of the knee.")] = "p99=25ms",
    runs: Annotated[int, typer.Option(help="With switches; as many without.")] = 5,
    control: Annotated[bool, typer.Option(help="Whether to measure without switches.")] = True,
    folder: Annotated[Path | None, typer.Option(help="Keeps bundles and store.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="Of the service: NAME=VALUE.")] = None,
    starts_of: Annotated[int, typer.Option("--starts", help="Measure starts, so many.")] = 0,
    against: Annotated[Path | None, typer.Option(help="Another checkout, for starts.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    variables = dict(text.split("=", 1) for text in setting or ())
    with tempfile.TemporaryDirectory(prefix="swaps-") as name:
        place = folder or Path(name)
        prepare(place, items, paper=paper)
        about: Json = {"items": asyncio.run(count(place)), "paper": paper}
        if starts_of:
            found = about | starts(place, starts_of, against, variables)
            met = found.get("ratio", 1.0) <= 1.0
        else:
            found = about | measured(
                place,
                swaps=swaps,
                seconds=seconds,
                rate=rate,
                slo=slo,
                runs=runs,
                control=control,
                variables=variables,
            )
            met = meets_bars(found)
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        for what, value in found.items():
            typer.echo(f"{what:>24} {value}")
    raise typer.Exit(int(not met))


if __name__ == "__main__":
    typer.run(main)
