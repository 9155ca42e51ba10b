"""Calibration: the ranking stays, the error of the click rates falls, and the bundle says so."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from model_export.__main__ import app
from model_export.build import build
from model_export.bundle.bundle import newest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import Calibration
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.verify import verify
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality.calibrate import PICTURE, Calibrated, calibrate, network_logits, platt
from model_export.quality.held_out import HeldOut
from model_export.quality.random_network import random_network
from model_export.quality.random_rows import random_held_out
from training import checkpoint
from training.evaluation.metrics import auc, reliability
from training.qin import QIN


@pytest.fixture(scope="module")
def held_out(network: QIN) -> HeldOut:
    """Clicks by the network's own probabilities: for these it is calibrated."""
    return random_held_out(network)


@pytest.fixture(scope="module")
def sure(network: QIN) -> QIN:
    """The same network, three times as sure as it may be, and a little too hopeful."""
    changed = random_network(network.schema, network.sizes, seed=1)
    with torch.no_grad():
        changed.fc.weight.mul_(3)
        changed.fc.bias.mul_(3).add_(0.5)
    return changed


@pytest.fixture(scope="module")
def calibrated(sure: QIN, held_out: HeldOut) -> Calibrated:
    return calibrate(sure, held_out)


def folded(network: QIN, calibration: Calibration) -> QIN:
    """The network with the last layer that a bundle with this calibration has."""
    changed = copy.deepcopy(network)
    last = FoldedNetwork.of(network).calibrated(calibration.slope, calibration.intercept)
    with torch.no_grad():
        changed.fc.weight.copy_(torch.from_numpy(last.fc[None]))
        changed.fc.bias.fill_(last.bias)
    return changed


def test_the_error_falls_for_users_it_was_not_fitted_on(calibrated: Calibrated) -> None:
    found = calibrated.calibration
    assert found.slope == pytest.approx(1 / 3, abs=0.05)
    assert found.ece_after < found.ece_before / 2
    assert found.logloss_after < found.logloss_before
    assert found.rows + found.judged_rows == 2000
    assert calibrated.picture.startswith(b"\x89PNG")


def test_the_ranking_is_unchanged(calibrated: Calibrated, sure: QIN, held_out: HeldOut) -> None:
    before = network_logits(sure, held_out.rows)
    after = network_logits(folded(sure, calibrated.calibration), held_out.rows)
    assert auc(before, held_out.rows.label) == auc(after, held_out.rows.label)
    order = np.argsort(before, kind="stable")
    apart = np.diff(before[order]) > 1e-5  # nearer ones may change in rounding
    assert (np.diff(after[order])[apart] > 0).all()
    found = calibrated.calibration
    np.testing.assert_allclose(after, found.slope * before + found.intercept, atol=1e-5)


def test_the_bundle_answers_with_it_and_says_so(
    calibrated: Calibrated, sure: QIN, held_out: HeldOut, tmp_path: Path
) -> None:
    bundle = build(
        sure,
        tmp_path,
        calibration=calibrated.calibration,
        pictures={PICTURE: calibrated.picture},
    )
    assert bundle.manifest.calibration == calibrated.calibration
    assert bundle.manifest.files[PICTURE].size == len(calibrated.picture)
    assert verify(bundle.path)[1].max_abs_error < 1e-5
    model, rows = FoldedModel(bundle), held_out.rows
    vectors = model.items(rows.items.rows)
    scores, label = [], []
    for users in held_out.lists(10_000):
        asked = model.in_context(vectors.take(users.candidates), users.context)
        scores.append(model.rank(asked, model.history(vectors.vector[users.history])))
        label.append(users.label)
    ece = reliability(np.concatenate(scores), np.concatenate(label)).ece
    assert ece < calibrated.calibration.ece_before / 2


def test_a_known_share_of_negatives_is_put_right(network: QIN, held_out: HeldOut) -> None:
    """Of the rows without a click one in four is kept; the true rates are found again."""
    random, rate, rows = np.random.default_rng(3), 0.25, held_out.rows
    kept = np.flatnonzero((rows.label > 0.5) | (random.random(len(rows)) < rate))
    sampled = dataclasses.replace(
        rows,
        **{n: getattr(rows, n)[kept] for n in ("user", "history", "target", "context", "label")},
    )
    found = calibrate(network, HeldOut.of(sampled, "sampled"), rate)
    plain = calibrate(network, HeldOut.of(sampled, "sampled"))
    assert found.calibration.intercept == pytest.approx(
        plain.calibration.intercept + math.log(rate)
    )
    assert found.calibration.slope == plain.calibration.slope
    truth = 1 / (1 + np.exp(-network_logits(network, rows)))
    put_right = 1 / (1 + np.exp(-network_logits(folded(network, found.calibration), rows)))
    left_alone = 1 / (1 + np.exp(-network_logits(folded(network, plain.calibration), rows)))
    assert np.abs(put_right - truth).mean() < 0.03 < np.abs(left_alone - truth).mean()


# From 0.3 on, 6 standard deviations above a slope that would be refused.
@given(slope=st.floats(0.3, 4), intercept=st.floats(-3, 3), seed=st.integers(0, 99))
def test_the_line_of_most_likelihood_is_found(slope: float, intercept: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logit = random.normal(0, 1.5, 4000)
    label = (random.random(4000) < 1 / (1 + np.exp(-slope * logit - intercept))).astype(float)
    p, q = platt(logit, label)
    residual = 1 / (1 + np.exp(-p * logit - q)) - label
    assert abs(residual.sum()) < 1e-4
    assert abs((residual * logit).sum()) < 1e-4


def test_what_would_turn_the_ranking_round_is_refused() -> None:
    random = np.random.default_rng(0)
    logit = random.normal(size=500)
    for label in ((logit + random.normal(size=500) < 0), logit > 0):
        with pytest.raises(BundleError, match="the best slope is"):
            platt(logit, label.astype(float))


def test_half_the_users_with_labels_of_one_kind_are_refused(
    network: QIN, held_out: HeldOut
) -> None:
    rows = held_out.rows
    label = np.zeros(len(rows), np.float32)
    label[0] = 1
    with pytest.raises(BundleError, match="half of its users"):
        calibrate(network, HeldOut(dataclasses.replace(rows, label=label), "x"))


def test_calibrate_as_a_command(
    sure: QIN, held_out: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "c", sure, {})
    monkeypatch.setattr(HeldOut, "read", lambda *_: held_out)  # read in test_cli_int8
    models = tmp_path / "models"
    options = ("--data", "x", "--out", str(models), "--negative-sampling-rate", "0.5")
    done = CliRunner().invoke(app, ["calibrate", str(tmp_path / "c"), *options])
    assert done.exit_code == 0, done.stderr
    assert "with 0.5 of the negatives" in done.stdout
    published = newest(models)
    assert published.manifest.calibration.negative_sampling_rate == 0.5
    assert (published.path / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert published.manifest.training.checkpoint == "c"
