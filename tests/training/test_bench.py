"""The benchmark's own figures, at sizes that take no time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from feature_store.schema import FeatureSchema
from training.bench import users as bench_users
from training.bench.steps import random_batch, random_network, run, same_kernels
from training.qin import QINSizes
from training.recipe import Recipe

SCHEMA = FeatureSchema.from_yaml(
    """
name: small
history_length: 6
item:
  - {name: item_id, kind: categorical, vocabulary: 200, width: 8}
  - {name: item_tags, kind: categorical_list, vocabulary: 20, slots: 3, width: 8}
  - {name: content, kind: dense, size: 5, width: 8}
identity: item_id
context:
  - {name: level, vocabulary: 11, width: 4}
""",
    source="small",
)
SIZES = QINSizes(attention_width=16, layers=2, rows=3)


def test_figures_are_whole_and_finite() -> None:
    seen: list[tuple[str, int, int]] = []
    figures = run(
        batch=9, repeats=2, schema=SCHEMA, sizes=SIZES, on_progress=lambda *step: seen.append(step)
    )
    numbers = [v for v in figures.values() if isinstance(v, float)]
    assert all(math.isfinite(v) and v >= 0 for v in numbers)
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["batch"], figures["history"], figures["repeats"]) == (9, 6, 2)
    assert figures["speedup"] == figures["published_ms"] / figures["reassociated_ms"]
    assert figures["max_gradient_difference"] < 1e-9
    assert figures["worst_parameter"] in dict(random_network(SCHEMA, SIZES).named_parameters())
    assert seen[-1] == ("turns", 2, 2)


def test_gradients_agree_with_user_and_request_features() -> None:
    more = {
        "user": [
            {"name": "who", "kind": "categorical", "vocabulary": 30, "width": 3},
            {"name": "taste", "kind": "dense", "size": 4, "width": 3},
        ],
        "request": [
            {"name": "device", "kind": "categorical", "vocabulary": 4, "width": 2},
            {"name": "hour", "kind": "numeric", "width": 2},
        ],
    }
    schema = FeatureSchema.model_validate(SCHEMA.model_dump() | more)
    figures = run(batch=9, repeats=1, schema=schema, sizes=SIZES)
    assert figures["max_gradient_difference"] < 1e-9


def test_steps_with_few_and_with_many_users_are_timed_and_compared() -> None:
    sizes = QINSizes(attention_width=16, layers=1, rows=2)
    recipe = Recipe(sizes=sizes, touched_rows_above=1000)
    figures = bench_users.run([10, 2000], recipe, batch=64, repeats=2)
    assert figures["step_ms"].keys() == {"10", "2000"}
    assert figures["ratio"] == figures["step_ms"]["2000"] / figures["step_ms"]["10"]
    width = 8
    assert figures["parameters"]["2000"] - figures["parameters"]["10"] == 1990 * width
    assert json.loads(json.dumps(figures)) == figures


def test_flop_are_those_of_the_shapes() -> None:
    figures = run(batch=9, repeats=1, schema=SCHEMA, sizes=SIZES, history=4)
    B, L, D, A, X, R = 9, 4, 24, 16, 52, 3
    network = 3 * SIZES.layers * B * R * X * X + 3 * B * X  # forward, and both gradients
    assert figures["history"] == L
    published = network + 3 * (2 * B * L * D * A + 2 * B * D * A)  # keys, values; query, output
    published += 3 * 2 * B * L * A  # scores and their weighted sum
    published += 2 * B * (L + 1) * 5 * 8  # content, which needs no gradient of its input
    assert figures["published_gflop"] == pytest.approx(2 * published / 1e9)
    ours = network + 3 * 4 * B * D * A + 6 * B * L * D  # the history's gradient is one product
    ours += 2 * (figures["distinct_items"] + 1) * 5 * 8
    assert figures["reassociated_gflop"] == pytest.approx(2 * ours / 1e9)


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_the_mask(query: torch.Tensor, vectors: torch.Tensor, index: torch.Tensor) -> object:
        history = F.embedding(index, vectors)
        return torch.einsum("bd,bld,ble->be", query, history, history)  # no ReLU either

    monkeypatch.setattr("training.qin.interest", forgets_the_mask)
    figures = run(batch=9, repeats=1, schema=SCHEMA, sizes=SIZES)
    assert figures["max_gradient_difference"] > 1e-3


def test_the_batch_repeats_popular_items_and_embeds_them_once() -> None:
    rows = random_batch(SCHEMA, 64, 50, seed=1)
    ids = rows.items["item_id"]
    assert ids[0] == 0
    assert len(ids.unique()) == len(ids) <= 200
    assert (rows.history != 0).all()
    assert (rows.target != 0).all()
    count = np.bincount(ids[rows.history].flatten().numpy(), minlength=200)
    assert count[1] > 5 * count[100:].mean()


def test_settings_of_torch_are_put_back() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    run(batch=4, repeats=1, threads=threads + 1, schema=SCHEMA, sizes=SIZES)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    with same_kernels():
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled
