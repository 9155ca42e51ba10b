"""How soon another process sees a change. ``python -m tests.service.measure_freshness [--json]``.

Two service processes on one Redis. An item is patched through the first; the second is asked for
its score every few milliseconds until it differs. So is the first, whose next answer must know.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import typer

from tests.feature_store.redis_servers import standalone
from tests.service.process import serving
from tests.service.world import World, make_world, on_another_store

MOST_S = 1.0


def measured(world: World, changes: int) -> dict[str, Any]:
    with (
        serving(world.models, world.store, QIN_THREADS="1") as first,
        serving(world.models, world.store, QIN_THREADS="1") as second,
        first.client() as one,
        second.client() as other,
    ):
        times, unaware = [], 0
        for number in range(changes):
            item = int(world.ids[number % len(world.ids)])
            before = _score(other, item)
            content = np.random.default_rng(number).normal(0, 2, 6).round(3).tolist()
            began = time.perf_counter()
            one.patch(f"/v1/items/{item}", json={"content": content}).raise_for_status()
            unaware += _score(one, item) == before
            while _score(other, item) == before:
                time.sleep(0.002)
                assert time.perf_counter() - began < 10, "it is never seen"
            times.append(time.perf_counter() - began)
    return {
        "changes": changes,
        "not_in_the_writers_next_answer": unaware,
        "others_p50_ms": round(1e3 * float(np.median(times)), 1),
        "others_worst_ms": round(1e3 * max(times), 1),
    }


def _score(client: httpx.Client, item: int) -> float:
    body = {"user_id": 1, "candidates": [item], "history": []}
    score: float = client.post("/v1/score", json=body).json()["scores"][0]
    return score


def main(
    changes: Annotated[int, typer.Option(help="How many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when one took more than a second, or the writer's next answer missed one."""
    with tempfile.TemporaryDirectory() as folder, standalone(Path(folder) / "redis") as server:
        made = make_world(Path(folder), items=200, users=5)
        found = measured(on_another_store(made, f"redis://127.0.0.1:{server.port}"), changes)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:32} {v}" for k, v in found.items()))
    slow = found["others_worst_ms"] > 1e3 * MOST_S
    raise typer.Exit(int(slow or found["not_in_the_writers_next_answer"] > 0))


if __name__ == "__main__":
    typer.run(main)
