"""Building refuses to publish what does not answer as the network does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.contents import Origin, Wanted
from feature_store.schema import FeatureSchema
from model_export.build import GATE, STEPS, build
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, ParityError
from model_export.bundle.manifest import MANIFEST, ContentOrigin
from model_export.bundle.runtime import FoldedModel
from model_export.graphs import folds as fold
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality.random_network import random_network
from tests.model_export.schemas import LEVELS, LEVELS_SIZES, SMALL, SMALL_SIZES
from training.qin import QIN

SABOTAGE: dict[str, Callable[..., object]] = {
    "attention_keys": lambda W_q, W_k: W_q.T @ W_k,  # forgets √A
    "attention_values": lambda W_o, W_v: (W_o @ W_v).T,
    "rows": lambda W, b, X: (W.reshape(X, -1, X).sum(1), b.reshape(X, -1).sum(1)),
    "batch_norm": lambda W, b, *, gamma, beta, mean, variance, epsilon: fold.Normalised(
        gamma[:, None] * W, gamma * b, beta - gamma * mean
    ),
    "first_layer": lambda A0, contexts, D: dataclasses.replace(
        TRUE_FIRST_LAYER(A0, contexts, D), target=A0[:, -2 * D : -D]
    ),
}
TRUE_FIRST_LAYER = fold.first_layer


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_fold_is_not_published_and_the_worst_case_named(
    name: str, network: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, name, SABOTAGE[name])
    with pytest.raises(ParityError, match=r"is not published: .*worst case: \w.*: candidate \d+"):
        build(network, tmp_path, version="v")
    assert list(tmp_path.iterdir()) == []


def test_an_error_just_beyond_the_tolerance_is_enough_to_refuse(
    network: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FoldedNetwork.of(network)
    for shift, published in ((1e-10, True), (1e-9, False)):
        monkeypatch.setattr(
            FoldedNetwork,
            "of",
            lambda _, s=shift: dataclasses.replace(honest, bias=honest.bias + s),
        )
        if published:
            build(network, tmp_path)
        else:
            with pytest.raises(ParityError):
                build(network, tmp_path)


def test_a_network_that_answers_nan_is_refused(tmp_path: Path) -> None:
    network = random_network(SMALL, SMALL_SIZES)
    with torch.no_grad():
        network.fc.bias.fill_(float("nan"))
    with pytest.raises(ParityError, match="differs from the PyTorch network's by inf"):
        build(network, tmp_path)


def test_a_feature_may_not_take_a_name_of_the_graphs(tmp_path: Path) -> None:
    text = SMALL.to_yaml().replace("likes_level", "row").replace("content", "vector")
    schema = FeatureSchema.from_yaml(text, source="test")
    with pytest.raises(BundleError, match=r"feature named row, vector: .*rename"):
        build(random_network(schema, SMALL_SIZES), tmp_path)


def test_user_and_user_row_are_names_of_the_graphs_where_there_are_users(tmp_path: Path) -> None:
    plain = SMALL.to_yaml().replace("likes_level", "user").replace("views_level", "user_row")
    build(random_network(FeatureSchema.from_yaml(plain, source="test"), SMALL_SIZES), tmp_path)
    text = LEVELS.to_yaml().replace("country", "user").replace("slot\n", "user_row\n")
    schema = FeatureSchema.from_yaml(text, source="test")
    with pytest.raises(BundleError, match=r"feature named user, user_row: .*rename"):
        build(random_network(schema, LEVELS_SIZES), tmp_path)


def test_the_manifest_says_what_the_bundle_is(network: QIN, bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.feature_schema == SMALL
    assert manifest.sizes.rows == SMALL_SIZES.rows
    assert manifest.parameters == sum(p.numel() for p in network.parameters())
    assert manifest.parity.max_abs_error <= 2e-6
    assert manifest.parity.cases == len(bundle.golden().probability)
    assert manifest.parity.informative > 0.5
    assert {file.name for file in bundle.path.iterdir()} == {*manifest.files, "manifest.json"}


def test_the_manifest_says_whose_contents_it_wants(network: QIN, tmp_path: Path) -> None:
    feature = next(f.name for f in network.schema.item if f.kind == "dense")
    content = ContentOrigin(feature=feature, digest="00000000000000aa")
    bundle = build(network, tmp_path, version="with", content=content)
    wanted = FoldedModel(bundle).wanted
    assert wanted == Wanted(Origin(feature, "00000000000000aa"), given=False)
    without = build(network, tmp_path, version="without")
    assert FoldedModel(without).wanted is None
    members = json.loads((without.path / MANIFEST).read_text())
    assert "content" not in members  # which earlier releases would refuse
    other = ContentOrigin(feature="colour", digest="00000000000000aa")
    with pytest.raises(BundleError, match="colour is no dense item feature"):
        build(network, tmp_path, version="other", content=other)
    assert not (tmp_path / "other").exists()


def test_building_leaves_the_network_as_it_was(network: QIN, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    build(network, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_every_step_is_announced_in_order(network: QIN, tmp_path: Path) -> None:
    announced: list[str] = []
    build(network, tmp_path, announce=announced.append)
    assert announced == [step for step in STEPS if step != GATE]


def test_random_networks_are_reproducible_and_spread_over_the_unit_interval(
    bundle: Bundle, network: QIN
) -> None:
    again = random_network(SMALL, SMALL_SIZES, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    answers = bundle.golden().probability
    assert np.quantile(answers, 0.95) - np.quantile(answers, 0.05) > 0.25
