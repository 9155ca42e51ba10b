"""Items put with a text, then scored. ``python -m tests.service.measure_item_text [--json]``.

The seconds from the moment a ``PUT`` with a German text is sent until an answer of ``/v1/score``
has the item's score, at 20 such items a second beside scores at a steady rate, on two workers; and
the latency of scores alone, alone again (what two equal runs differ by) and beside such writes,
with one worker on one core and the generator on another. Of the writes that were due it counts
those done, refused (429, 503), failed, and not sent because writers were late. An encoder of the
sizes of ``demo`` with random weights, or one with a map to a feature ``content`` of 6 numbers
(``--encoder``).
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from tests.service.measure_embeddings import lags, steady
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.traffic import contents
from tests.service.world import World, make_world
from tests.text import small

FEATURE, SIZE, VOCABULARY = "content", 6, 280
FIRST = 10**13  # ids of the new items
WRITES = 20  # a second
STALL_S = 0.005
REFUSALS = (429, 503)
AT_ONCE = 4  # writers, so that one that is late delays no other


def encoder_of_random_weights(folder: Path) -> Path:
    """Build a bundle of ``demo``'s sizes with a map to the world's feature."""
    import torch

    from text.content.fit import fit
    from text.content.items import ItemTexts
    from text.encoder.checkpoint import save
    from text.encoder.jinabert import JinaBert
    from text.encoder.presets import RECIPES
    from text.export.build import build
    from text.runtime.encoder import TextEncoder
    from text.tokenizer import TextTokenizer

    words = (" ".join(small.WORDS) for _ in range(9))
    sizes = RECIPES.preset("demo").sizes.model_copy(update={"vocabulary": VOCABULARY})
    torch.manual_seed(0)
    save(folder / "checkpoint", JinaBert(sizes).eval(), None, TextTokenizer.train(words, 280), {})
    plain = build(folder / "checkpoint", folder, version="plain", longest=512)
    random = np.random.default_rng(0)
    texts = [title(random) for _ in range(300)]
    vectors = random.normal(size=(300, SIZE)).tolist()
    table = pa.table({"text_de": texts, FEATURE: pa.array(vectors)})
    pq.write_table(table, folder / "items.parquet")
    fitted = fit(
        TextEncoder(plain),
        ItemTexts(folder / "items.parquet", (), [FEATURE]),
        FEATURE,
        into=FEATURE,
    )
    (folder / "map.npz").write_bytes(fitted.encoded())
    return build(
        folder / "checkpoint", folder, version="mapped", longest=512, content=folder / "map.npz"
    ).path


def title(random: np.random.Generator) -> str:
    return " ".join(random.choice(small.WORDS, random.integers(4, 13)))


@dataclass(slots=True)
class Writes:
    """What became of the writes; ``seconds`` of those done run from when they were due."""

    seconds: list[float] = field(default_factory=list)
    due: int = 0
    refused: int = 0  # 429 or 503
    failed: int = 0
    faults: list[str] = field(default_factory=list)  # the first answers that failed

    def count(self, put: httpx.Response, scored: httpx.Response | None, took: float) -> None:
        """Count a write by its answer and, if it was 200, that of the score of its item."""
        last = scored if scored is not None else put
        if last.status_code in REFUSALS:
            self.refused += 1
        elif scored is None or scored.status_code != 200 or scored.json()["scores"][0] is None:
            self.failed += 1
            if len(self.faults) < 3:
                self.faults.append(f"{last.status_code} {last.text[:200]}")
        else:
            self.seconds.append(took)

    def end(self, seconds: float) -> None:
        """Set how many were due in these seconds, of which writers that are late send fewer."""
        self.due = ceil(seconds * WRITES)

    def row(self) -> dict[str, Any]:
        done = len(self.seconds)
        sent = done + self.refused + self.failed
        row: dict[str, Any] = {"due": self.due, "done": done, "refused": self.refused}
        row |= {"failed": self.failed, "not_sent": max(0, self.due - sent), "faults": self.faults}
        return row | (percentiles(self.seconds) if done else {})


@contextmanager
def writing(service: Service, world: World, first: int) -> Iterator[Writes]:
    """Put new items with a text, WRITES a second in all, until the end of the block."""
    found, lock, stop, began = Writes(), threading.Lock(), threading.Event(), time.perf_counter()
    rest = {"item_id": 7, "item_tags": [3], "likes_level": 2, "views_level": 1}
    lengths = {feature.name for feature in world.schema.stored_item}
    assert lengths == {*rest, FEATURE}

    def write(writer: int) -> None:
        random = np.random.default_rng(first + writer)
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            for number in range(writer, 10**6, AT_ONCE):
                due = began + number / WRITES
                if stop.wait(max(0.0, due - time.perf_counter())):
                    return
                item, values = first + number, {**rest, "text": {"de": title(random)}}
                put = client.put(f"/v1/items/{item}", json=values)
                body = {"user_id": 1, "candidates": [item]}
                scored = client.post("/v1/score", json=body) if put.status_code == 200 else None
                with lock:
                    found.count(put, scored, time.perf_counter() - due)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        found.end(time.perf_counter() - began)
        stop.set()
        for thread in threads:
            thread.join()


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 99)}


def measured(encoder: Path | None, rate: float, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = encoder or encoder_of_random_weights(folder)
        world = make_world(folder, items=400, users=30)
        bodies = contents(world)
        variables = {
            "QIN_ENCODER": str(encoder),
            "QIN_THREADS": "1",
            "QIN_DEADLINE_MS": PATIENCE_MS,
        }
        rows: dict[str, Any] = {}
        with serving(world.models, world.store, QIN_WORKERS="2", **variables) as service:
            steady(service, bodies, rate, 1.0)
            before = lags(service)
            with writing(service, world, FIRST) as writes:
                took = steady(service, bodies, rate, seconds)
            rows["put until scored, 2 workers"] = _row(writes, took, before, lags(service))
        cores = sorted(os.sched_getaffinity(0))
        of_service = ("taskset", "-c", str(cores[0]))
        os.sched_setaffinity(0, {cores[-1]})
        with serving(world.models, world.store, under=of_service, **variables) as service:
            steady(service, bodies, rate, 1.0)
            for row in ("alone", "alone again"):
                before = lags(service)
                took = steady(service, bodies, rate, seconds)
                rows[row] = _row(None, took, before, lags(service))
            before = lags(service)
            with writing(service, world, FIRST) as writes:
                took = steady(service, bodies, rate, seconds)
            rows["beside writes"] = _row(writes, took, before, lags(service))
        rows["ratio of p99"] = {
            "alone again": round(rows["alone again"]["p99_ms"] / rows["alone"]["p99_ms"], 2),
            "beside writes": round(rows["beside writes"]["p99_ms"] / rows["alone"]["p99_ms"], 2),
        }
        return rows


def _row(
    writes: Writes | None, took: list[float], before: dict[float, float], after: dict[float, float]
) -> dict[str, Any]:
    more = {le: n - before[le] for le, n in after.items()}
    row: dict[str, Any] = {**percentiles(took), "scores": len(took)}
    row["stalls_over_5_ms"] = more[float("inf")] - more[STALL_S]
    row["looks"] = more[float("inf")]
    if writes is not None:
        row["put_until_scored"] = writes.row()
    return row


def main(
    encoder: Annotated[
        Path | None, typer.Option(help="A bundle with a map to the world's feature.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Scores a second.")] = 50,
    seconds: Annotated[float, typer.Option(help="Of each row.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    found = measured(encoder, rate, seconds)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{name:28} {row}" for name, row in found.items()))


if __name__ == "__main__":
    typer.run(main)
