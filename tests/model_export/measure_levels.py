"""Imports and runs a level variant of any sizes. ``python -m tests.model_export.measure_levels``.

A random network, by default at the authors' sizes (177,801,093 parameters), is written as their
state_dict, imported, built and run by the runtime, and compared with PyTorch in float64 and, on
some cases, with loops over the file's own tensors. Users are known, cold and without a record;
items are known, cold, without tags and in other contexts than their own.
"""

from __future__ import annotations

import copy
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor
from typer.testing import CliRunner

from feature_store.schema import FeatureSchema
from model_export.__main__ import app
from model_export.bundle.bundle import Bundle
from model_export.bundle.runtime import FoldedModel
from model_export.quality.golden_cases import network_answer, network_items
from model_export.quality.random_network import random_network
from tests.model_export.naive_published import TABLE, probability
from training import checkpoint
from training.qin import QIN, QINSizes

SHIPPED = Path(__file__).parents[2] / "feature_store" / "schemas" / "microlens-levels.yaml"
TOLERANCE = 1e-5  # of a probability
ITEMS, CANDIDATES = 400, 20
BY_LOOPS = 24  # cases that the loops compute


@dataclass(frozen=True)
class Sizes:
    """The authors'."""

    users: int = 1_000_001
    items: int = 91_718
    tags: int = 11_740
    levels: int = 11
    slots: int = 5
    history: int = 64
    E: int = 128
    P: int = 128
    C: int = 128
    A: int = 1280
    layers: int = 4
    rows: int = 3

    @property
    def user_table_bytes(self) -> int:
        return self.users * self.E * 4

    def schema(self) -> FeatureSchema:
        content = FeatureSchema.read(SHIPPED).model_dump(mode="json")
        vocabulary = {
            "user_id": self.users,
            "item_id": self.items,
            "item_tags": self.tags,
            "likes_level": self.levels,
            "views_level": self.levels,
        }
        for feature in (*content["user"], *content["item"], *content["context"]):
            feature["width"] = self.E
            if feature["name"] in vocabulary:
                feature["vocabulary"] = vocabulary[feature["name"]]
            else:
                feature |= {"size": self.C, "width": self.P}
            if "slots" in feature:
                feature["slots"] = self.slots
        return FeatureSchema.model_validate(content | {"history_length": self.history})


def their_state(network: QIN) -> dict[str, Tensor]:
    """The network's tensors under FuxiCTR's names."""
    found = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        match parts:
            case ["user_vector" | "item_vector", "embedding", "item_emb_d128", _]:
                key = f"{TABLE.rpartition('.')[0]}.feature_encoders.item_emb_d128.weight"
            case ["user_vector" | "item_vector", "embedding", feature, _]:
                key = f"{TABLE}.{feature}.weight"
            case ["context", *_]:  # the tables of the item vector once more
                continue
            case ["attention", *rest]:
                key = ".".join(["attention_layers", *rest])
            case ["layers", number, "linear", rest]:
                key = f"qnn.layer.{number}.linear.0.{rest}"
            case ["layers", number, part, rest]:
                key = f"qnn.{part}.{number}.{rest}"
            case _:
                key = f"qnn.{name}"
        found[key] = tensor
    return found


def measured(sizes: Sizes, cases: int, seed: int = 0) -> dict[str, Any]:
    began = time.monotonic()
    output = {"attention_width": sizes.A, "layers": sizes.layers, "rows": sizes.rows}
    network = random_network(sizes.schema(), QINSizes(**output, output_bias=True), seed)
    state = their_state(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        torch.save(state, path / "QIN.model")
        _write_items(path / "items.parquet", sizes, np.random.default_rng(seed))
        _invoke(
            "import-fuxictr", path / "QIN.model", "--items", path / "items.parquet",
            "--out", path / "checkpoint", "--history", sizes.history,
        )  # fmt: skip
        _invoke("build", path / "checkpoint", "--out", path / "models", "--version", "v")
        bundle = Bundle.open(path / "models" / "v")
        imported = checkpoint.load(path / "checkpoint")
        assert imported.schema == sizes.schema()
        answered = _answered(FoldedModel(bundle), network, state, sizes, cases, seed)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "network_width": imported.schema.network_width,
        "item_vector_width": imported.schema.item_vector_width,
        **answered,
        "tolerance": TOLERANCE,
        "parity": bundle.manifest.parity.model_dump(),
        "user_table_bytes": sizes.user_table_bytes,
        "mapped": sorted(bundle.manifest.mapped),
        "memory_most_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "took_s": time.monotonic() - began,
    }


def _invoke(*arguments: str | int | Path) -> None:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output


def _write_items(file: Path, sizes: Sizes, random: np.random.Generator) -> None:
    count = min(ITEMS, sizes.items) - 1
    tags = random.integers(0, sizes.tags, (count, sizes.slots))
    content = random.normal(size=(count, sizes.C)).astype(np.float32)
    levels = random.integers(1, sizes.levels, (2, count))
    columns = {"item_id": np.arange(1, count + 1), "item_tags": tags.tolist()}
    columns |= {"item_emb_d128": content.tolist()}
    columns |= {"likes_level": levels[0], "views_level": levels[1]}
    pq.write_table(pa.table(columns), file)


def _answered(
    model: FoldedModel, network: QIN, state: dict[str, Tensor], sizes: Sizes, cases: int, seed: int
) -> dict[str, Any]:
    """Errors of the runtime against PyTorch in float64 and against the loops."""
    random, schema = np.random.default_rng([seed, 1]), network.schema
    exact = copy.deepcopy(network).double()
    rows = _items(sizes, schema, random)
    inputs = {
        name: value.double() if value.is_floating_point() else value
        for name, value in network_items(schema, rows).items()
    }
    vectors, weights = model.items(rows), {name: tensor.numpy() for name, tensor in state.items()}
    errors, by_loops, cold = [], [], 0
    for number in range(-(-cases // CANDIDATES)):
        length = number % (sizes.history + 1)
        history = random.integers(0, len(rows), length).astype(np.int32)
        candidates = random.integers(0, len(rows), CANDIDATES).astype(np.int32)
        context = random.integers(0, sizes.levels + 2, (CANDIDATES, 2)).astype(np.int32)
        own = np.stack([rows["likes_level"], rows["views_level"]], 1)[candidates]
        context = np.where(random.random((CANDIDATES, 1)) < 0.5, own, context)
        user, index = _user(number, sizes, schema, random)
        expected = network_answer(exact, inputs, history, candidates, context, user=user)
        asked = model.in_context(vectors.take(candidates), context)
        served = model.rank(asked, model.history(vectors.vector[history]), model.user(user))
        errors.append(np.abs(served - expected))
        cold += CANDIDATES * (index == 0)
        if len(by_loops) < BY_LOOPS:
            past = [_item(rows[h], sizes) for h in history]
            for place in range(2):
                one = _item(rows[candidates[place]], sizes)
                alone = {
                    "likes_level": _known(int(context[place, 0]), sizes.levels),
                    "views_level": _known(int(context[place, 1]), sizes.levels),
                }
                found = probability(weights, one, past, index, alone)
                by_loops.append(abs(float(served[place]) - found))
    error = np.concatenate(errors)
    return {
        "cases": len(error),
        "cases_of_unknown_users": int(cold),
        "worst_error": float(error.max()),
        "mean_error": float(error.mean()),
        "cases_by_loops": len(by_loops),
        "worst_error_by_loops": max(by_loops),
    }


def _items(sizes: Sizes, schema: FeatureSchema, random: np.random.Generator) -> NDArray[np.void]:
    """Known items, and cold ones, without tags, without content, without levels."""
    rows = np.zeros(ITEMS, schema.item_dtype)
    rows["item_id"] = random.integers(1, sizes.items, ITEMS)
    rows["item_id"][::9] = 0
    rows["item_id"][4::9] = sizes.items + random.integers(0, 1000, len(rows[4::9]))
    rows["item_tags"] = random.integers(0, sizes.tags, (ITEMS, sizes.slots))
    rows["item_tags"][::7] = 0
    rows["item_emb_d128"] = random.normal(0, 1, (ITEMS, sizes.C))
    rows["item_emb_d128"][::11] = 0
    for name in ("likes_level", "views_level"):
        rows[name] = random.integers(0, sizes.levels, ITEMS)
    return rows


def _item(row: NDArray[np.void], sizes: Sizes) -> dict[str, Any]:
    """An item as the loops read it: unknown indices are 0."""
    found: dict[str, Any] = {name: row[name] for name in row.dtype.names or ()}
    found["item_id"] = _known(int(row["item_id"]), sizes.items)
    return found


def _known(index: int, vocabulary: int) -> int:
    return index if 0 < index < vocabulary else 0


def _user(
    number: int, sizes: Sizes, schema: FeatureSchema, random: np.random.Generator
) -> tuple[NDArray[np.void] | None, int]:
    """A record, or none, and the index that it means."""
    unknown = (None, 0, sizes.users, 2**31 - 1, -1)
    record = np.zeros(1, schema.user_dtype)
    if number % 3:
        index = sizes.users - 1 if number % 3 == 1 else int(random.integers(1, sizes.users))
        record["user_id"] = index
        return record, index
    given = unknown[number // 3 % len(unknown)]
    if given is None:
        return None, 0
    record["user_id"] = given
    return record, 0


def main(
    cases: Annotated[int, typer.Option(help="Candidates to compare.")] = 1300,
    seed: Annotated[int, typer.Option(help="Of the network and the cases.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    result = measured(Sizes(), cases, seed)
    typer.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2) if as_json else str(result))
    if not max(result["worst_error"], result["worst_error_by_loops"]) <= TOLERANCE:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
