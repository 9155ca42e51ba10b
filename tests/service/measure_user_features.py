"""Times scores with user and request features. ``python -m tests.service.measure_user_features``.

Two networks of the same X = 1,024 at the paper's sizes: one with five user and three request
features, the other with context features of the same widths, whose values are stored with the
items, so that its requests carry nothing. One service has both loaded, and the second once more
(A/A); requests of 512 candidates name their version, in turns. Over several processes each version
is loaded first, second and last as often: where memory lies matters.

Beside p50 at the client: multiply-adds of the rankers, and the stages by ``Server-Timing``.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from feature_store.schema import FeatureSchema
from model_export.bench.request import random_records
from model_export.bench.user import REQUEST, USER, WORK
from model_export.build import build
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.multiply_adds import multiply_adds
from model_export.graphs.ranker import ranker
from model_export.quality.random_network import random_network
from tests.service.measure_oip import Connection, apart
from tests.service.process import Service
from tests.service.user_world import put_users
from tests.service.world import SMALL_SIZES, load
from training.qin import QINSizes

CANDIDATES, ITEMS, USERS = 512, 4000, 200
VERSIONS = ("context", "user", "again")  # the last: the first network once more
FIRST = "first"  # a small model, active from the start and never asked
WARM = 30  # requests of each version before any is counted
BAR = 1.03
HEADERS = {"X-Server-Timing": "1", "X-Deadline-Ms": "10000"}
Features = tuple[tuple[int, int], ...]


class Pair:
    """Both networks, and the store that serves either."""

    def __init__(self, folder: Path, items: FeatureSchema, sizes: QINSizes) -> None:
        """Make them in the folder, unless they are there."""
        self.models, self.store = folder / "models", f"lmdb://{folder / 'store'}"
        self.ids = np.arange(1, ITEMS + 1)
        schemas, made = _schemas(items), folder / "multiply_adds.json"
        self.width = schemas["user"].network_width
        if not made.exists():
            self._load(schemas)
            work = {
                name: self._build(name, schema, SMALL_SIZES if name == FIRST else sizes)
                for name, schema in schemas.items()
            }
            made.write_bytes(orjson.dumps(work))
        self.multiply_adds: dict[str, int] = orjson.loads(made.read_bytes())

    def _build(self, name: str, schema: FeatureSchema, sizes: QINSizes) -> int:
        """Build the bundles of a network; its ranker's multiply-adds per candidate."""
        network = random_network(schema, sizes)
        for version in ("context", "again") if name == "context" else (name,):
            build(network, self.models, version=version)
        shape = {"C": 1, "L": schema.history_length}
        return multiply_adds(ranker(FoldedNetwork.of(network)).model(), shape)

    def _load(self, schemas: Mapping[str, FeatureSchema]) -> None:
        held, random = schemas["context"], np.random.default_rng(0)
        held = FeatureSchema.model_validate(
            held.model_dump(mode="json")
            | {"user": [f.model_dump(mode="json") for f in schemas["user"].user]}
        )
        rows = random_records(held.stored_item, held.item_dtype, ITEMS, random)
        records = random_records(held.user, held.user_dtype, USERS, random)
        past = {n: random.choice(self.ids, held.history_length) for n in range(1, USERS + 1)}
        asyncio.run(load(self.store, held, self.ids, rows, past))
        asyncio.run(put_users(self.store, {n: records[n - 1 : n] for n in past}))

    def bodies(self, random: np.random.Generator) -> dict[str, bytes]:
        """The same request of each version, with features where it has such."""
        ask: dict[str, Any] = {
            "user_id": int(random.integers(1, USERS + 1)),
            "candidates": random.choice(self.ids, CANDIDATES).tolist(),
        }
        given = {f"request_{n}": int(random.integers(1, v)) for n, (v, _) in enumerate(REQUEST)}
        more = {"user": {"features": given}}
        return {v: orjson.dumps(ask | {"model_version": v} | more.get(v, {})) for v in VERSIONS}


def _schemas(items: FeatureSchema) -> dict[str, FeatureSchema]:
    """The same widths as context of the candidates, and of user and request; and without."""
    plain = items.model_copy(update={"context": ()}).model_dump(mode="json")
    roles = {
        "context": {"context": _features("context", USER + REQUEST)},
        "user": {"user": _features("user", USER), "request": _features("request", REQUEST)},
        FIRST: {},
    }
    return {name: FeatureSchema.model_validate(plain | more) for name, more in roles.items()}


def _features(room: str, features: Features) -> list[dict[str, Any]]:
    return [
        {"name": f"{room}_{n}", "kind": "categorical", "vocabulary": vocabulary, "width": width}
        for n, (vocabulary, width) in enumerate(features)
    ]


def measure(pair: Pair, groups: int, turns: int, *, anywhere: bool = False) -> dict[str, Any]:
    orders, medians, stages = list(permutations(VERSIONS)), [], defaultdict[str, list[Any]](list)
    for group in range(groups):
        with apart(
            pair.models, pair.store, anywhere=anywhere, QIN_MODEL_POLICY="manual"
        ) as service:
            for version in orders[group % len(orders)]:
                with service.admin() as admin:
                    admin.post(f"/admin/models/{version}/load").raise_for_status()
            took = in_turns(pair, service, turns, stages)
        medians.append([float(np.median(took[version])) for version in VERSIONS])
    context, user, again = np.array(medians).T
    return {
        "candidates": CANDIDATES,
        "network_width": pair.width,
        "requests_of_each": groups * turns,
        "context_ms_p50": round(float(np.median(context)), 4),
        "user_ms_p50": round(float(np.median(user)), 4),
        "ratios": np.round(user / context, 4).tolist(),
        "ratios_of_context_to_itself": np.round(again / context, 4).tolist(),
        "ratio": round(float(np.median(user / context)), 4),
        "ratio_of_context_to_itself": round(float(np.median(again / context)), 4),
        "ratio_allowed": BAR,
        "multiply_adds": {v: pair.multiply_adds[v] for v in ("context", "user")},
        "multiply_adds_ratio": pair.multiply_adds["user"] / pair.multiply_adds["context"],
        "multiply_adds_ratio_allowed": WORK.limit,
        "stages_ms_p50": {
            version: {
                stage: round(float(np.median([each[stage] for each in found])), 4)
                for stage in found[0]
            }
            for version, found in stages.items()
        },
    }


def in_turns(
    pair: Pair, service: Service, turns: int, stages: dict[str, list[dict[str, float]]]
) -> dict[str, list[float]]:
    """Milliseconds at the client by version; each follows each other one as often."""
    connection, random = Connection(service), np.random.default_rng(1)
    orders = list(permutations(VERSIONS))
    took = defaultdict[str, list[float]](list)
    for turn in range(-WARM, turns):
        bodies = pair.bodies(random)
        if turn % len(orders) == 0:
            random.shuffle(orders)
        for version in orders[turn % len(orders)]:
            began = perf_counter()
            reply = connection.post("/v1/score", bodies[version], HEADERS)
            spent = 1e3 * (perf_counter() - began)
            if turn >= 0:
                took[version].append(spent)
                stages[version].append(_stages(reply.headers["server-timing"]))
    return took


def _stages(header: str) -> dict[str, float]:
    parts = (part.split(";dur=") for part in header.split(", "))
    return {stage: float(milliseconds) for stage, milliseconds in parts}


def main(
    groups: Annotated[int, typer.Option(help="Processes; 6 have every order of loading.")] = 6,
    turns: Annotated[int, typer.Option(help="Requests of each version, a process.")] = 200,
    world: Annotated[
        Path | None, typer.Option(help="Folder for models and store, which a next run uses again.")
    ] = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Pin nothing to a core.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a bar is missed."""
    with tempfile.TemporaryDirectory() as temporary:
        pair = Pair(world or Path(temporary), FeatureSchema.microlens(), QINSizes())
        figures = measure(pair, groups, turns, anywhere=anywhere)
    typer.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2) if as_json else str(figures))
    met = figures["ratio"] <= BAR and figures["multiply_adds_ratio"] <= WORK.limit
    if not met:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
