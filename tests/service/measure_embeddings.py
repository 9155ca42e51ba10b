"""Scores beside vectors of texts. ``python -m tests.service.measure_embeddings ENCODER [--json]``.

A service on one engine thread is asked for scores at a steady rate: alone, alone again (what two
equal runs differ by), beside short texts at a steady rate, and beside lists of texts one after the
other. Latency is from when a score was due; stalls are the event loop's own measurement.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import typer

from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.traffic import contents
from tests.service.world import make_world

WORDS = "the house of a tree which is used by programs und das Haus mit dem Baum".split()  # noqa: SIM905
LISTED = 512  # texts of a list
LAG = re.compile(r'qin_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)')


def texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"{seed} {i} {' '.join(random.choice(WORDS, 16))}" for i in range(count)]


@contextmanager
def repeated(service: Service, every_s: float, count: int) -> Iterator[list[int]]:
    """Ask for vectors of ``count`` new texts at a time, until the end of the block."""
    statuses, stop = list[int](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=120, trust_env=False) as client:
            while not stop.wait(every_s):
                body = {"input": texts(count, len(statuses))}
                statuses.append(client.post("/v1/embeddings", json=body).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


def steady(service: Service, bodies: list[bytes], rate: float, seconds: float) -> list[float]:
    """Latencies (s) of scores, each from when it was due."""
    found = []
    with service.client() as client:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            client.post("/v1/score", content=bodies[number % len(bodies)]).raise_for_status()
            found.append(time.perf_counter() - due)
    return found


def lags(service: Service) -> dict[float, float]:
    with service.client() as client:
        return {float(le): float(n) for le, n in LAG.findall(client.get("/metrics").text)}


def measured(encoder: Path, rate: float, seconds: float) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), items=400, users=30)
        variables = {
            "QIN_ENCODER": str(encoder),
            "QIN_THREADS": "1",
            "QIN_DEADLINE_MS": PATIENCE_MS,
        }
        with serving(world.models, world.store, **variables) as service:
            bodies = contents(world)
            steady(service, bodies, rate, 2.0)

            def row(name: str, every_s: float | None = None, count: int = 0) -> None:
                before = lags(service)
                if every_s is None:
                    took, statuses = steady(service, bodies, rate, seconds), []
                else:
                    with repeated(service, every_s, count) as statuses:
                        took = steady(service, bodies, rate, seconds)
                more = {le: n - before[le] for le, n in lags(service).items()}
                rows[name] = {
                    **{f"p{q}_ms": round(1e3 * float(np.percentile(took, q)), 2) for q in (50, 99)},
                    "stalls_over_5_ms": more[float("inf")] - more[0.005],
                    "looks": more[float("inf")],
                    "requests_for_vectors": len(statuses),
                    "texts_a_second": round(count * statuses.count(200) / seconds, 1),
                    "not_200": len(statuses) - statuses.count(200),
                }

            row("alone")
            row("alone again")
            row("20 texts a second", 0.05, 1)
            row(f"lists of {LISTED} texts", 0.0, LISTED)
    return rows


def main(
    encoder: Annotated[Path, typer.Argument(help="A bundle of `python -m text build`.")],
    rate: Annotated[float, typer.Option(help="Scores a second.")] = 50,
    seconds: Annotated[float, typer.Option(help="Of each row.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    found = measured(encoder, rate, seconds)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{name:24} {row}" for name, row in found.items()))


if __name__ == "__main__":
    typer.run(main)
