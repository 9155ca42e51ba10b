"""int8 behind its gate: what it measures, what it refuses, and what a forced bundle says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from feature_store.contract import ItemRows
from model_export.build import STEPS, Int8, build
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, GateError
from model_export.bundle.reduced_golden import check_same_arithmetic, golden_logit_error
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.verify import verify
from model_export.graphs import ranker
from model_export.quality import gate
from model_export.quality.calibrate import calibrate
from model_export.quality.held_out import HeldOut, UserList
from model_export.quality.random_network import random_network
from model_export.quality.random_rows import random_held_out
from tests.model_export.answers import candidates, in_float64, random_request, user_of
from tests.model_export.schemas import LEVELS, SMALL, SMALL_SIZES
from training.qin import QIN


def mild_network() -> QIN:
    """Its products matter little, and so does the precision they are taken in."""
    network = random_network(SMALL, SMALL_SIZES, seed=1)
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.mul_(0.01)
            layer.norm.bias.mul_(0.01)
    return network


@pytest.fixture(scope="module")
def mild() -> QIN:
    return mild_network()


@pytest.fixture(scope="module")
def held_out(mild: QIN) -> HeldOut:
    return random_held_out(mild)


@pytest.fixture(scope="module")
def quantised(mild: QIN, held_out: HeldOut, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Forced, but it passes without that."""
    models = tmp_path_factory.mktemp("models")
    return build(mild, models, version="q", int8=Int8(held_out, force=True))


def test_a_bundle_that_passes_says_what_int8_changes(quantised: Bundle) -> None:
    found = quantised.manifest.quantisation
    assert found is not None
    assert found.passed
    assert not found.forced
    assert (found.rows, found.users) == (2000, 500)
    assert 0 < found.mean_abs_delta_p < found.max_abs_delta_p < 1e-3
    assert 0.99 < found.kendall_tau < 1
    assert found.logit_error_bound > found.max_abs_delta_p  # p moves a quarter of a logit at most
    assert {"ranker.int8.onnx", "ranker.int8.weights"} <= quantised.manifest.files.keys()
    assert verify(quantised.path)[0] == quantised


def test_the_figures_are_those_of_every_list_scored_both_ways(
    quantised: Bundle, held_out: HeldOut
) -> None:
    found, rows = quantised.manifest.quantisation, held_out.rows
    model, random = FoldedModel(quantised, precision="int8"), np.random.default_rng(0)
    apart, p, q, label, worst, half = [], [], [], [], 0.0, 0.0
    largest = []
    for number, asked in enumerate(held_out.lists(gate.MOST_LISTS)):
        own = len(asked.candidates)
        if number < gate.FILLED_LISTS:
            asked = asked.filled(rows.items, gate.FILLED_TO, random)
        vectors = model.items(rows.items.rows)
        history = model.history(vectors.vector[asked.history])
        chosen = model.in_context(vectors.take(asked.candidates), asked.context)
        inputs = chosen.vector, chosen.row, history.keys, history.values, history.rows
        largest.append([*(np.abs(part).max(initial=0) for part in inputs), 0, 0])  # no user
        exact, quick = model.exact(chosen, history), model.rank(chosen, history)
        apart.append(np.abs(exact.astype(np.float64) - quick))
        p.append(exact[:own])
        q.append(quick[:own])
        label.append(asked.label[:own])
        logits = model.logits(chosen, history), model.logits(chosen, history, "int8")
        errors = np.abs(logits[0] - logits[1])
        worst = max(worst, float(errors.max()))
        better = np.argsort(-logits[0], kind="stable")[: -(-len(errors) // 2)]
        half = max(half, float(errors[better].max()))
    assert_allclose(found.mean_abs_delta_p, np.concatenate(apart).mean(), rtol=0.1)
    assert_allclose(found.max_abs_delta_p, np.concatenate(apart).max(), rtol=0.1)
    assert found.logit_error_bound == pytest.approx(worst, rel=1e-6)
    assert found.better_half_logit_error == pytest.approx(half, rel=1e-6)
    assert found.largest is not None
    numbers = np.array(list(found.largest.model_dump().values()))
    assert_array_equal(numbers, np.max(largest, axis=0))
    assert model.logit_bound == found.top_k_bound == found.better_half_logit_error
    y = np.concatenate(label) > 0.5

    def pairwise(scores: np.ndarray) -> float:
        wins = scores[y][:, None] - scores[~y]
        return float(((wins > 0) + 0.5 * (wins == 0)).mean())

    delta = abs(pairwise(np.concatenate(p)) - pairwise(np.concatenate(q)))
    assert found.delta_auc == pytest.approx(delta, abs=2e-6)


def test_what_does_not_pass_is_not_published_and_leaves_nothing(
    network: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, held_out = ranker.per_column, random_held_out(network)
    monkeypatch.setattr(
        ranker, "per_column", lambda w: (lambda q, s: (q // 32 * 32, s))(*honest(w))
    )
    with pytest.raises(GateError, match=r"int8 differs too much on random rows.*--force"):
        build(network, tmp_path, version="v", int8=Int8(held_out))
    assert list(tmp_path.iterdir()) == []
    announced: list[str] = []
    forced = build(
        network,
        tmp_path,
        version="v",
        int8=Int8(held_out, force=True),
        announce=announced.append,
    )
    found = forced.manifest.quantisation
    assert (found.passed, found.forced) == (False, True)
    assert announced == list(STEPS)


@pytest.mark.parametrize("limit", ["MOST_DELTA_AUC", "MOST_MEAN_DELTA_P"])
def test_either_limit_alone_refuses(
    limit: str, quantised: Bundle, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FoldedModel(quantised, precision="int8")
    monkeypatch.setattr(gate, "FILLED_LISTS", 8)
    monkeypatch.setattr(gate, limit, 0.0)
    with pytest.raises(GateError):
        gate.measure(model, held_out, quantised.golden(), False)


def test_rows_with_few_labels_of_a_class_judge_nothing(
    quantised: Bundle, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one click and one other row AUC is the same in any number format."""
    model, golden = FoldedModel(quantised, precision="int8"), quantised.golden()
    monkeypatch.setattr(gate, "FILLED_LISTS", 8)
    monkeypatch.setattr(gate, "MOST_MEAN_DELTA_P", 1.0)
    monkeypatch.setattr(gate, "MOST_DELTA_AUC", 1.0)
    assert gate.measure(model, held_out, golden, False).passed
    clicks = int(held_out.rows.label.sum())
    fewer = min(clicks, len(held_out.rows.label) - clicks)
    monkeypatch.setattr(gate, "LEAST_OF_A_CLASS", fewer + 1)
    with pytest.raises(GateError, match=rf"has {fewer} labels of a class, .* use more rows"):
        gate.measure(model, held_out, golden, False)
    forced = gate.measure(model, held_out, golden, True)
    assert (forced.passed, forced.forced) == (False, True)


def test_the_products_alone_are_int8(quantised: Bundle) -> None:
    weights = quantised.path / "ranker.int8.weights"
    assert weights.stat().st_size < (quantised.path / "ranker.weights").stat().st_size
    model = FoldedModel(quantised, precision="int8")
    request = random_request(SMALL, length=5)
    vectors = model.items(request.items)
    history = model.history(vectors.vector[request.history])
    asked = model.in_context(vectors.take(request.candidates), request.context)
    assert (model.rank(asked, history) != model.exact(asked, history)).any()


def test_another_arithmetic_than_the_gates_is_noticed(quantised: Bundle) -> None:
    model, golden = FoldedModel(quantised, precision="int8"), quantised.golden()
    recorded = quantised.manifest.quantisation
    assert check_same_arithmetic(model, golden, recorded) == golden_logit_error(model, golden)
    elsewhere = recorded.model_copy(update={"golden_logit_error": recorded.golden_logit_error / 10})
    with pytest.raises(BundleError, match="this processor computes it differently"):
        check_same_arithmetic(model, golden, elsewhere)


def test_lists_hold_every_row_once_with_its_users_history(held_out: HeldOut) -> None:
    rows, seen = held_out.rows, 0
    wanted = {
        (int(u), tuple(h[h != 0]), int(t), float(y))
        for u, h, t, y in zip(rows.user, rows.history, rows.target, rows.label, strict=True)
    }
    told = set()
    for users in held_out.lists(10_000):
        seen += len(users.candidates)
        for target, label in zip(users.candidates, users.label, strict=True):
            told.add((tuple(users.history), int(target), float(label)))
    assert seen == len(rows)
    assert told == {one[1:] for one in wanted}
    assert sum(1 for _ in held_out.lists(7)) == 7


def test_one_users_histories_are_not_mixed(held_out: HeldOut) -> None:
    rows = held_out.rows
    history = rows.history.copy()
    history[1] = 0  # the first user had nothing at the second row
    split = HeldOut(dataclasses.replace(rows, history=history), "x")
    lists = list(split.lists(10_000))
    assert len(lists) == 501
    assert sorted(len(users.candidates) for users in lists[:2]) == [1, 3]
    assert sorted(len(users.history) for users in lists[:2]) == [0, np.count_nonzero(history[0])]


def test_a_list_has_one_user_and_one_request(levels: QIN) -> None:
    rows = random_held_out(levels).rows
    assert rows.request is not None
    assert rows.users is not None
    request = rows.request.copy()
    request["hour"][0] = 99.0  # the first row of its list, asked apart from the others
    lists = list(HeldOut(dataclasses.replace(rows, request=request), "x").lists(10_000))
    apart = [one for one in lists if one.request["hour"] == 99.0]
    assert [len(one.candidates) for one in apart] == [1]
    lengths = sorted(len(one.candidates) for one in lists)
    assert lengths == [1, 3, *[4] * 499]  # lists without an hour, too: NaN equals itself
    assert sum(bool(np.isnan(one.request["hour"])) for one in lists) > 50
    for one in lists:
        assert one.user is not None
        assert one.user.dtype == levels.schema.user_dtype
    kept = {one.user["taste"].tobytes() for one in lists if one.user is not None}
    assert len(kept) > 300


def test_a_network_with_users_passes_its_gate_and_is_calibrated(
    levels: QIN, tmp_path: Path
) -> None:
    held_out = random_held_out(levels)
    fitted = calibrate(levels, held_out).calibration
    bundle = build(levels, tmp_path, int8=Int8(held_out, force=True), calibration=fitted)
    verify(bundle.path)
    model = FoldedModel(bundle, precision="int8")
    request = random_request(LEVELS, length=5, count=20)
    vectors = candidates(model, request)
    past = model.history(model.items(request.items).vector[request.history])
    user = user_of(model, request)
    quick, exact = (model.logits(vectors, past, p, user) for p in ("int8", "fp32"))
    assert 0 < np.abs(quick - exact).max() < 0.2
    raw = in_float64(levels, request)
    logit = fitted.slope * np.log(raw / (1 - raw)) + fitted.intercept
    np.testing.assert_allclose(exact, logit, atol=1e-4)


def test_a_list_is_filled_with_items_in_their_own_contexts(held_out: HeldOut) -> None:
    items = held_out.rows.items
    asked: UserList = next(held_out.lists(1))
    longer = asked.filled(items, 40, np.random.default_rng(1))
    assert longer.candidates.shape == (40,)
    assert np.isnan(longer.label).tolist() == [False] * 4 + [True] * 36
    stored: ItemRows = items.rows[longer.candidates[4:]]
    for column, feature in enumerate(SMALL.context):
        assert (longer.context[4:, column] == stored[feature.name]).all()
    assert (longer.context[:4] == asked.context).all()
    assert asked.filled(items, 2, np.random.default_rng(1)).candidates.tolist() == list(
        asked.candidates
    )


def test_rows_that_cannot_judge_are_refused(held_out: HeldOut, tmp_path: Path) -> None:
    rows = held_out.rows
    for label, message in ((np.nan, "no column 'label'"), (1.0, "labels of one class only")):
        with pytest.raises(BundleError, match=message):
            HeldOut.of(dataclasses.replace(rows, label=np.full(len(rows), label, np.float32)), "x")
    with pytest.raises(BundleError, match=r"held-out data: .*item_info\.parquet"):
        HeldOut.read(tmp_path, SMALL)
