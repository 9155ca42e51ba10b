"""Items put with a text, then scored. ``python -m tests.service.measure_item_text [--json]``.

The seconds from the moment a ``PUT`` with a German text is sent until an answer of ``/v1/score``
has the item's score, at 20 such items a second beside scores at a steady rate, on two workers; and
the latency of scores alone, alone again (what two equal runs differ by) and beside 20 such writes a
second, in turns, with one worker on one core and the generators on another. Of the writes that were
due it counts those done, refused (429, 503), failed, and not sent because writers were late. An
encoder of the sizes of ``demo`` with random weights, or one with a map to a feature ``content`` of
6 numbers (``--encoder``).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from tests.service.item_writer import Writes, percentiles, title, writing
from tests.service.measure_embeddings import lags, steady
from tests.service.process import PATIENCE_MS, serving
from tests.service.traffic import contents
from tests.service.world import make_world
from tests.text import small

FEATURE, SIZE, VOCABULARY = "content", 6, 280
FIRST, APART = 10**13, 10**6  # ids of the new items
STALL_S = 0.005
TURNS = 3  # of each row on one core
ALONE, AGAIN, BESIDE = "alone", "alone again", "beside writes"


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
            with writing(service.port, FIRST, score=True) as writes:
                took = steady(service, bodies, rate, seconds)
            rows["put until scored, 2 workers"] = _row(took, before, lags(service), writes)
        cores = sorted(os.sched_getaffinity(0))
        of_service = ("taskset", "-c", str(cores[0]))
        os.sched_setaffinity(0, {cores[-1]})
        turns: dict[str, list[dict[str, Any]]] = {ALONE: [], AGAIN: [], BESIDE: []}
        latencies: dict[str, list[float]] = {name: [] for name in turns}
        with serving(world.models, world.store, under=of_service, **variables) as service:
            steady(service, bodies, rate, 1.0)
            for turn in range(TURNS):
                for name in (ALONE, BESIDE, AGAIN):
                    before, writes = lags(service), Writes()
                    if name == BESIDE:
                        with writing(service.port, FIRST + (1 + turn) * APART) as writes:
                            took = steady(service, bodies, rate, seconds / TURNS)
                    else:
                        took = steady(service, bodies, rate, seconds / TURNS)
                    turns[name].append(_row(took, before, lags(service), writes))
                    latencies[name] += took
        rows |= turns
        p99 = {name: percentiles(took)["p99_ms"] for name, took in latencies.items()}
        rows["p99_ms"], alone = p99, p99[ALONE]
        rows["ratio of p99"] = {n: round(p99[n] / alone, 2) for n in (AGAIN, BESIDE)}
        return rows


def _row(
    took: list[float], before: dict[float, float], after: dict[float, float], writes: Writes
) -> dict[str, Any]:
    more = {le: n - before[le] for le, n in after.items()}
    row: dict[str, Any] = {**percentiles(took), "scores": len(took)}
    row["stalls_over_5_ms"] = more[float("inf")] - more[STALL_S]
    row["looks"] = more[float("inf")]
    if writes.due:
        row["writes"] = writes.row()
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
