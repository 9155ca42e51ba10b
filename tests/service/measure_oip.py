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
above the engine with what another one does, in turns, over several pairs of processes.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import orjson
import typer

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from service.client_calls import read_scores, score_call
from service.client_plan import Reply
from tests.service.process import Service, serving
from tests.service.wire import next_response
from tests.service.world import SMALL, SMALL_SIZES, World, make_world
from training.qin import QINSizes

ENGINE = ("queue", "history", "rank")
BAR_MS, BAR_RATIO = 0.3, 1.0
WARM = 50  # requests of each kind before any is counted
CORES = os.sched_getaffinity(0)
PAIRS, TURNS = 5, 20  # of processes; of each process


class Connection:
    """One that stays open. A request leaves in one piece: what is measured does not wait for a
    second one."""

    def __init__(self, service: Service) -> None:
        self._socket = socket.create_connection((service.host, service.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        lines = {**headers, "Host": "service", "Content-Length": str(len(body))}
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
        question = {"user_id": 3, "candidates": items}
        body = orjson.dumps(question, option=orjson.OPT_SERIALIZE_NUMPY)
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
def apart(world: World, *, anywhere: bool, **variables: str) -> Iterator[Service]:
    """A service on the last core, and we on the others, unless ``anywhere``. Two of them share that
    core: one is idle while the other is asked."""
    try:
        if not anywhere:
            os.sched_setaffinity(0, {max(CORES)})  # inherited
        with serving(world.models, world.store, **variables) as service:
            if not anywhere:
                os.sched_setaffinity(0, CORES - {max(CORES)} or CORES)
            yield service
    finally:
        os.sched_setaffinity(0, CORES)


def measure(world: World, count: int, *, anywhere: bool) -> dict[str, float]:
    with apart(world, anywhere=anywhere) as service:
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


def compare(world: World, other: Path, count: int, *, anywhere: bool) -> dict[str, float]:
    """Above the engine, at 2,000 candidates: this build's median, the other's, their ratio."""
    items = np.resize(world.ids, 2000)
    elsewhere = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(other.resolve(strict=True))}
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(PAIRS):  # no process is as fast as the next one: where its memory is matters
        with (
            apart(world, anywhere=anywhere) as ours,
            apart(world, anywhere=anywhere, **elsewhere) as theirs,
        ):
            for turn in range(TURNS):
                for which in (0, 1) if turn % 2 else (1, 0):
                    block = max(1, count // PAIRS // TURNS)
                    took[which].extend(above_engine_ms((ours, theirs)[which], items, block))
    ours_ms, theirs_ms = (float(np.median(times)) for times in took)
    return {
        "requests": len(took[0]),
        "above_engine_2000_ms_p50": round(ours_ms, 4),
        "above_engine_2000_ms_p50_of_the_other": round(theirs_ms, 4),
        "ratio": round(ours_ms / theirs_ms, 4),
    }


def main(
    count: Annotated[int, typer.Option("--requests", help="Of each kind.")] = 1000,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Pin nothing to a core.")] = False,
    against: Annotated[Path | None, typer.Option("--against", help="Another checkout.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="At the paper's sizes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a bar is missed."""
    schema = FeatureSchema.microlens() if paper else SMALL
    sizes = QINSizes() if paper else SMALL_SIZES
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), schema, sizes, items=4000)
        if against is not None:
            figures = compare(world, against, count, anywhere=anywhere)
        else:
            figures = measure(world, count, anywhere=anywhere)
    if as_json:
        print(orjson.dumps(figures).decode())
    else:
        for name, value in figures.items():
            print(f"{name:>38} {value}")
    met = figures["above_engine_2000_ms_p50"] <= BAR_MS
    if not met or figures.get("binary_over_v1_500", 0.0) > BAR_RATIO:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
