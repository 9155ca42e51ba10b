"""What the Open Inference Protocol costs. ``python -m tests.service.measure_oip --json``.

Two figures, at a model so small that Python is most of it:

- what a binary request of 2,000 candidates costs outside of the engine: the processor time of the
  service's event loop, which does everything but run the graphs (receiving, parsing, the store's
  read, finding the items, writing and sending the answer), from the kernel's own count; beside it
  the wall-clock time by ``Server-Timing``, the total without queue, history and rank;
- how long 500 candidates take, binary against ``/v1/score``, asked in turns over two connections
  that stay open: medians, and the median of the ratios of neighbours.

Generator and service have a core each; ``--anywhere`` leaves it to the system. A machine may not
keep its speed from one minute to the next: ``--against FOLDER`` compares what this checkout takes
above the engine with what another one does, in turns, over several groups of three processes: this
checkout, the other, and the other once more (A/A), whose ratio to the first shows the noise. The
world that all of them serve is made by the other checkout, so its files are ones that both read.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from service.client.calls import read_scores, score_call
from service.client.retry import Reply
from tests.service.process import Service, serving
from tests.service.wire import next_response
from tests.service.world import SMALL, SMALL_SIZES, World, make_world
from training.qin import QINSizes

ENGINE = ("queue", "history", "rank")
BAR_MS, BAR_RATIO, BAR_AGAINST = 0.3, 1.0, 1.05
WARM = 50  # requests of each kind before any is counted
CORES = os.sched_getaffinity(0)
GROUPS, TURNS = 6, 20  # of processes, of which each starts first in a third; of each process
MAKE_WORLD = """
import sys
from pathlib import Path
import numpy as np
from feature_store.schema import FeatureSchema
from tests.service.world import SMALL, SMALL_SIZES, make_world
from training.qin import QINSizes

folder, paper = Path(sys.argv[1]), sys.argv[2] == "paper"
schema, sizes = (FeatureSchema.microlens(), QINSizes()) if paper else (SMALL, SMALL_SIZES)
np.save(folder / "ids.npy", make_world(folder, schema, sizes, items=4000).ids)
"""


class Connection:
    """One that stays open. A request leaves in one piece: what is measured does not wait for a
    second one."""

    def __init__(self, service: Service) -> None:
        self._socket = socket.create_connection((service.host, service.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"{service.host}:{service.port}"

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        lines = {**headers, "Host": self._host, "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._socket.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = next_response(self._socket)
        assert answer.status == 200, answer.body
        return Reply(200, answer.headers, answer.body)


def loop_seconds(service: Service) -> float:
    """Processor time of the service's main thread so far, on which its event loop runs."""
    return int(Path(f"/proc/{service.process.pid}/schedstat").read_text().split()[0]) / 1e9


def loop_cost_ms(service: Service, items: Ids, count: int) -> float:
    """Mean of a binary request."""
    connection, call = Connection(service), score_call("qin", 3, items)
    began = 0.0
    for turn in range(WARM + count):
        if turn == WARM:
            began = loop_seconds(service)
        connection.post(call.path, call.body, dict(call.headers))
    return 1e3 * (loop_seconds(service) - began) / count


def above_engine_ms(service: Service, items: Ids, count: int) -> list[float]:
    """Of each request, from its own timings."""
    connection, call, found = Connection(service), score_call("qin", 3, items), []
    for _ in range(WARM + count):
        reply = connection.post(call.path, call.body, {**call.headers, "X-Server-Timing": "1"})
        parts = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
        spent = float(parts["total"]) - sum(float(parts[stage]) for stage in ENGINE)
        found.append(spent)
    return found[WARM:]


def in_turns(service: Service, items: Ids, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds at the client, encoding and decoding included: binary, and ``/v1/score``."""
    one, other = Connection(service), Connection(service)

    def binary() -> np.ndarray:
        call = score_call("qin", 3, items)
        return read_scores(one.post(call.path, call.body, dict(call.headers))).scores

    def json() -> np.ndarray:
        query = {"user_id": 3, "candidates": items}
        body = orjson.dumps(query, option=orjson.OPT_SERIALIZE_NUMPY)
        return np.array(orjson.loads(other.post("/v1/score", body, {}).body)["scores"], np.float32)

    assert binary().tobytes() == json().tobytes()
    pair: tuple[Callable[[], np.ndarray], ...] = (binary, json)
    took: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM + count):
        for which in (0, 1) if turn % 2 else (1, 0):  # each goes first as often
            began = perf_counter()
            pair[which]()
            took[which].append(1e3 * (perf_counter() - began))
    return took[0][WARM:], took[1][WARM:]


@contextmanager
def apart(models: Path, store: str, *, anywhere: bool, **variables: str) -> Iterator[Service]:
    """A service on the last core, and we on the others, unless ``anywhere``. Those in use at a time
    share that core: all but the one that is asked are idle."""
    try:
        if not anywhere:
            os.sched_setaffinity(0, {max(CORES)})  # inherited
        with serving(models, store, **variables) as service:
            if not anywhere:
                os.sched_setaffinity(0, CORES - {max(CORES)} or CORES)
            yield service
    finally:
        os.sched_setaffinity(0, CORES)


def measure(world: World, count: int, *, anywhere: bool) -> dict[str, float]:
    with apart(world.models, world.store, anywhere=anywhere) as service:
        cost = loop_cost_ms(service, np.resize(world.ids, 2000), count)
        above = above_engine_ms(service, np.resize(world.ids, 2000), count)
        binary, json = in_turns(service, np.resize(world.ids, 500), count)
    ratios = np.array(binary) / np.array(json)
    return {
        "requests": count,
        "event_loop_2000_cpu_ms": round(cost, 4),
        "above_engine_2000_ms_p50": round(float(np.median(above)), 4),
        "above_engine_2000_ms_p90": round(float(np.quantile(above, 0.9)), 4),
        "binary_500_ms_p50": round(float(np.median(binary)), 4),
        "v1_500_ms_p50": round(float(np.median(json)), 4),
        "binary_over_v1_500": round(float(np.median(ratios)), 4),
    }


def world_of(other: Path, folder: Path, *, paper: bool) -> Ids:
    """Have the other checkout make bundle and store in ``folder``; the ids of its items."""
    subprocess.run(
        [sys.executable, "-c", MAKE_WORLD, str(folder), "paper" if paper else "small"],
        env={**os.environ, **elsewhere(other)},
        cwd=other,
        check=True,
    )
    ids: Ids = np.load(folder / "ids.npy")
    return ids


def elsewhere(other: Path) -> dict[str, str]:
    """Variables that make a Python child import the other checkout."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(other.resolve(strict=True))}


def compare(folder: Path, ids: Ids, other: Path, count: int, *, anywhere: bool) -> dict[str, Any]:
    """Above the engine, at 2,000 candidates: medians, and ratios by group of processes."""
    items, models, store = np.resize(ids, 2000), folder / "models", f"lmdb://{folder / 'store'}"
    blocks = max(1, count // GROUPS // TURNS)
    ours, theirs = dict[str, str](), elsewhere(other)
    medians = []  # of each group: ours, theirs, theirs again
    for group in range(GROUPS):  # no process is as fast as the next: where its memory is matters
        took: tuple[list[float], ...] = ([], [], [])
        with ExitStack() as stack:
            three = dict[int, Service]()
            for place in range(3):  # nor is the first one to start as fast as the others
                which = (group + place) % 3
                at = apart(models, store, anywhere=anywhere, **(theirs if which else ours))
                three[which] = stack.enter_context(at)
            for turn in range(TURNS):
                for place in range(3):  # each comes first, second and last as often
                    which = (turn + place) % 3
                    took[which].extend(above_engine_ms(three[which], items, blocks))
        medians.append([float(np.median(times)) for times in took])
    ours_ms, theirs_ms, again_ms = np.array(medians).T
    ratios, same = ours_ms / theirs_ms, again_ms / theirs_ms
    return {
        "requests": 3 * GROUPS * TURNS * blocks,
        "above_engine_2000_ms_p50": round(float(np.median(ours_ms)), 4),
        "above_engine_2000_ms_p50_of_the_other": round(float(np.median(theirs_ms)), 4),
        "ratios": [round(ratio, 4) for ratio in ratios.tolist()],
        "ratios_of_the_other_to_itself": [round(ratio, 4) for ratio in same.tolist()],
        "ratio": round(float(np.median(ratios)), 4),
        "ratio_of_the_other_to_itself": round(float(np.median(same)), 4),
        "ratio_allowed": BAR_AGAINST,
    }


def main(
    count: Annotated[int, typer.Option("--requests", help="Of each kind.")] = 1000,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Pin nothing to a core.")] = False,
    against: Annotated[Path | None, typer.Option("--against", help="Another checkout.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="At the paper's sizes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a bar is missed: with ``--against``, that of the ratio alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if against is not None:
            ids = world_of(against, folder, paper=paper)
            figures = compare(folder, ids, against, count, anywhere=anywhere)
            met = figures["ratio"] <= BAR_AGAINST
        else:
            schema = FeatureSchema.microlens() if paper else SMALL
            sizes = QINSizes() if paper else SMALL_SIZES
            world = make_world(folder, schema, sizes, items=4000)
            figures = measure(world, count, anywhere=anywhere)
            met = figures["above_engine_2000_ms_p50"] <= BAR_MS
            met &= figures["binary_over_v1_500"] <= BAR_RATIO
    if as_json:
        print(orjson.dumps(figures).decode())
    else:
        for name, value in figures.items():
            print(f"{name:>38} {value}")
    if not met:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
