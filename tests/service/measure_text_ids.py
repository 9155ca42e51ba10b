"""What text ids cost a score. ``python -m tests.service.measure_text_ids --json``.

Two services at the same time, of one model and the same items: one from a numeric store, the other
from a mapped one whose ids are UUIDs. They are asked in turns, each over one connection that stays
open, for the same user and candidates, drawn anew each time. Measured is the time from the first
byte sent to the last one received, at the client; and the processor time of each service's event
loop. Exit code 1 when the median with texts is more than ``BAR`` times the one with numbers.

Each process keeps the numbers of the texts it has seen (``feature_store.text_ids.KEPT``): with
``--items`` beyond that, most of them are computed anew.
"""

from __future__ import annotations

import tempfile
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import orjson
import typer

from feature_store.schema import FeatureSchema
from tests.service.mapped_world import MappedWorld, make_mapped
from tests.service.measure_oip import WARM, Connection, loop_seconds
from tests.service.process import Service, serving
from tests.service.world import SMALL, SMALL_SIZES, make_world
from training.qin import QINSizes

BAR = 1.1
SCORE = "/v1/score"


def uuid_of(number: int) -> str:
    return str(UUID(bytes=blake2b(number.to_bytes(8, "little"), digest_size=16).digest()))


class Side:
    """One of the services."""

    def __init__(self, service: Service, *, texts: bool) -> None:
        self._service, self._connection, self._texts = service, Connection(service), texts
        self.took, self.loop_ms = list[float](), 0.0

    def ask(self, user: int, items: list[int]) -> list[float | None]:
        asked: dict[str, Any] = {"user_id": user, "candidates": items}
        if self._texts:
            asked = {"user_id": uuid_of(user), "candidates": list(map(uuid_of, items))}
        body, before = orjson.dumps(asked), loop_seconds(self._service)
        began = perf_counter()
        reply = self._connection.post(SCORE, body, {})
        self.took.append(1e3 * (perf_counter() - began))
        self.loop_ms += 1e3 * (loop_seconds(self._service) - before)
        answer = orjson.loads(reply.body)
        assert answer["item_ids"] == asked["candidates"]
        scores: list[float | None] = answer["scores"]
        return scores

    def forget(self) -> None:
        self.took, self.loop_ms = [], 0.0


def measure(mapped: MappedWorld, numbers: Side, texts: Side, count: int, candidates: int) -> None:
    random, world = np.random.default_rng(1), mapped.numeric
    users = list(world.users)
    for turn in range(WARM + count):
        if turn == WARM:
            numbers.forget()
            texts.forget()
        user = users[turn % len(users)]
        items = random.choice(world.ids, candidates, replace=False).tolist()
        pair = (numbers, texts) if turn % 2 else (texts, numbers)  # each goes first as often
        one, other = (side.ask(user, items) for side in pair)
        assert one == other


def main(
    count: Annotated[int, typer.Option("--requests", help="To each service.")] = 2000,
    candidates: Annotated[int, typer.Option(help="Of each request.")] = 200,
    items: Annotated[int, typer.Option(help="In the stores.")] = 4000,
    small: Annotated[bool, typer.Option("--small", help="A model smaller than paper's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    schema, sizes = (SMALL, SMALL_SIZES) if small else (FeatureSchema.microlens(), QINSizes())
    with tempfile.TemporaryDirectory() as name:
        world = make_world(Path(name), schema, sizes, items=items)
        mapped = make_mapped(world, Path(name), uuid_of)
        with (
            serving(world.models, world.store) as one,
            serving(world.models, mapped.store) as other,
        ):
            numbers, texts = Side(one, texts=False), Side(other, texts=True)
            measure(mapped, numbers, texts, count, candidates)
    medians = [float(np.median(side.took)) for side in (numbers, texts)]
    figures = {
        "requests": count,
        "candidates": candidates,
        "items": items,
        "numbers_ms_p50": round(medians[0], 4),
        "texts_ms_p50": round(medians[1], 4),
        "numbers_ms_p99": round(float(np.quantile(numbers.took, 0.99)), 4),
        "texts_ms_p99": round(float(np.quantile(texts.took, 0.99)), 4),
        "numbers_loop_cpu_ms": round(numbers.loop_ms / count, 4),
        "texts_loop_cpu_ms": round(texts.loop_ms / count, 4),
        "texts_over_numbers_p50": round(medians[1] / medians[0], 4),
        "allowed": BAR,
    }
    if as_json:
        print(orjson.dumps(figures).decode())
    else:
        for name, value in figures.items():
            print(f"{name:>24} {value}")
    if medians[1] > BAR * medians[0]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
