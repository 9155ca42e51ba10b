"""Scores over HTTP against the PyTorch network itself. ``python -m tests.service.parity --json``.

At the paper's sizes, with random weights whose probabilities spread over (0, 1). Every request is
one case: histories of every length, stored and inline, items without tags and without an identity,
stored contexts and every level of overridden ones.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import typer
from numpy.typing import NDArray

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from tests.service.process import serving
from tests.service.world import World, make_world
from training.qin import QINSizes

MOST_CANDIDATES = 16
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Case:
    user: int
    history: Ids  # (H,) newest first
    inline: bool
    candidates: Ids  # (C,)
    context: dict[str, NDArray[np.int32]]  # overridden columns, (C,) each

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"user_id": self.user, "candidates": self.candidates.tolist()}
        if self.context:
            body["context"] = {name: values.tolist() for name, values in self.context.items()}
        if self.inline:
            body["history"] = self.history[::-1].tolist()
        return body


@dataclass(slots=True)
class Parity:
    """What was compared, how far it was off, and that nothing was left out."""

    cases: int = 0
    scores: int = 0
    max_abs_error: float = 0.0
    worst_case: str = ""
    lowest: float = 1.0  # probability
    highest: float = 0.0
    history_lengths: set[int] = field(default_factory=set)
    levels: dict[str, set[int]] = field(default_factory=dict)
    cold_candidates: int = 0
    untagged_candidates: int = 0
    inline_histories: int = 0


def cases(world: World, count: int, seed: int) -> Iterator[Case]:
    random = np.random.default_rng(seed)
    longest, stored = world.schema.history_length, list(world.users)
    for number in range(count):
        inline = number % 2 == 0
        length = number // 2 % (longest + 1)
        if inline:
            user, history = 10**9 + number, random.choice(world.ids, length)
        elif length == 0:
            user, history = 10**9 + number, world.ids[:0]  # never seen
        else:
            user = stored[number % len(stored)]
            history = world.users[user]
        candidates = random.choice(world.ids, random.integers(1, MOST_CANDIDATES, endpoint=True))
        context = {}
        for feature in world.schema.context:
            if random.random() < 0.5:
                first = random.integers(feature.vocabulary)
                context[feature.name] = (first + np.arange(len(candidates))) % feature.vocabulary
        yield Case(user, history, inline, candidates, context)


def compare(world: World, client: httpx.Client, count: int, seed: int = 1) -> Parity:
    """Ask the service and the network the same; where they are furthest apart."""
    parity = Parity()
    order = np.argsort(world.ids)
    for case in cases(world, count, seed):
        if parity.cases % 100 == 0:
            print(f"{parity.cases} of {count} cases", file=sys.stderr)
        answer = client.post("/v1/score", json=case.body())
        assert answer.status_code == 200, answer.text
        served = np.array(answer.json()["scores"], np.float64)

        rows = world.rows[order[np.searchsorted(world.ids[order], case.candidates)]]
        context = np.stack(
            [case.context.get(f.name, rows[f.name]) for f in world.schema.context], axis=1
        ).astype(np.int32)
        expected = world.answer(case.history, case.candidates, context)

        error = float(np.abs(served - expected).max())
        if not error <= parity.max_abs_error:  # a NaN is the worst there is
            parity.max_abs_error = error
            parity.worst_case = (
                f"case {parity.cases}: history of {len(case.history)}, "
                f"{len(case.candidates)} candidates, overrides {sorted(case.context)}"
            )
        parity.lowest = min(parity.lowest, float(expected.min()))
        parity.highest = max(parity.highest, float(expected.max()))
        parity.cases += 1
        parity.scores += len(expected)
        parity.history_lengths.add(len(case.history))
        parity.inline_histories += case.inline
        for column, feature in enumerate(world.schema.context):
            levels = parity.levels.setdefault(feature.name, set())
            levels.update(context[context[:, column] < feature.vocabulary, column].tolist())
        parity.cold_candidates += len(answer.json()["cold_items"])
        parity.untagged_candidates += int((rows["item_tags"] == 0).all(axis=1).sum())
    return parity


def main(
    count: Annotated[int, typer.Option("--cases", help="Requests to compare.")] = 1200,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Compare at the paper's sizes; exit code 1 beyond the tolerance."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(
            Path(folder), FeatureSchema.microlens(), QINSizes(), items=2000, users=500
        )
        with serving(world.models, world.store) as service, service.client() as client:
            parity = compare(world, client, count)
    figures = asdict(parity) | {
        "history_lengths": len(parity.history_lengths),
        "levels": {name: len(levels) for name, levels in parity.levels.items()},
    }
    if as_json:
        print(orjson.dumps(figures).decode())
    else:
        for name, value in figures.items():
            print(f"{name:>26} {value}")
    if not parity.max_abs_error <= TOLERANCE:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
