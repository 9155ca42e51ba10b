"""Synthetic data whose clicks depend on user and request, and what is promised of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.schema import FeatureSchema
from training.__main__ import app
from training.data.dataset import Data, open_data
from training.evaluation.metrics import auc
from training.synthetic.click_model import LATENT, sigmoid
from training.synthetic.synthesize import SIZES, SynthesisSizes, synthesize
from training.synthetic.taste import BIAS, MISSING, Requests, Taste

SIZES_HERE = SynthesisSizes(
    train=40_001, valid=8_001, test=403, items=300, tags=50, history=8, taste=True, rows_per_user=20
)
USERS = 2001  # of train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taste")
    synthesize(out, SIZES_HERE, seed=3)
    return out


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return open_data(folder, FeatureSchema.read(folder / "schema.yaml"))


def truth(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "truth.json").read_text())
    assert isinstance(content, dict)
    return content


def test_without_taste_a_seed_gives_the_rows_of_release_0_1(tmp_path: Path) -> None:
    tiny = SynthesisSizes(train=101, valid=21, test=22, items=40, tags=9, embedding=6, history=5)
    synthesize(tmp_path, tiny, seed=5)
    digest = hashlib.sha256()
    for split in ("train", "valid", "test"):
        digest.update(str(pq.read_table(tmp_path / f"{split}.parquet").to_pylist()).encode())
    assert digest.hexdigest() == "7b74805523eed02193f1906aa66ad7ecc80b2a486148d9ea1ebef61acffa0da8"
    assert not (tmp_path / "user_info.parquet").exists()


def test_users_have_a_country_and_those_of_train_an_index(folder: Path, data: Data) -> None:
    users = pq.read_table(folder / "user_info.parquet")
    assert users.column_names == ["user_id", "user_index", "country"]
    assert len(users) == len(set(users["user_id"].to_pylist())) == USERS + 2001 + 101
    index = users["user_index"].to_pylist()
    assert sorted(i for i in index if i) == list(range(1, USERS + 1))
    known = {u for u, i in zip(users["user_id"].to_pylist(), index, strict=True) if i}
    assert known == set(data.train.user.tolist())
    assert set(users["country"].to_pylist()) == set(range(1, 9))


def test_rows_have_requests_some_of_them_incomplete(folder: Path) -> None:
    rows = pq.read_table(folder / "train.parquet")
    assert rows.column_names[-3:] == ["device", "hour", "label"]
    for name, values in (("device", {1, 2, 3}), ("hour", set(range(24)))):
        assert set(rows[name].drop_null().to_pylist()) == values
        assert abs(rows[name].null_count / len(rows) - MISSING) < 0.01


def test_schemas_with_and_without_user_and_request_read_the_same_folder(
    folder: Path, data: Data
) -> None:
    plain = FeatureSchema.read(folder / "plain.yaml")
    assert not plain.user
    assert not plain.request
    assert plain.item == data.train.schema.item
    assert plain.shared == {"likes_level", "views_level"}  # history items have their levels
    assert len(open_data(folder, plain).train) == SIZES_HERE.train


def test_the_best_auc_with_and_without_features_is_known(folder: Path, data: Data) -> None:
    found = truth(folder)
    assert 0.85 < found["best_auc_valid_without_features"] + 0.05 < found["best_auc_valid"] < 0.99
    assert abs(data.train.label.mean() - 0.25) < 0.03
    again = synthesize(folder.parent / "again", SIZES_HERE, seed=3)
    assert again.best_auc_valid == found["best_auc_valid"]


def taste_of(users: int = 4000, known: int = 2000) -> Taste:
    return Taste(np.random.default_rng(1), users, known)


def test_country_hour_and_device_shift_taste_and_a_missing_one_does_not() -> None:
    taste = taste_of()
    taste.bias[:] = 0
    user = np.arange(4000)
    latent = np.random.default_rng(2).standard_normal((4000, 1, LATENT)).astype(np.float32)
    nothing = Requests(np.full((4000, 1), np.nan, np.float32), np.zeros((4000, 1), np.int64))
    zero = np.zeros((4000, 1))
    base = taste.logit(zero, user, latent, nothing)
    by_country = [base[taste.country == c].ravel() for c in range(1, 9)]
    items = [latent[taste.country == c][:, 0] for c in range(1, 9)]
    for logit, vectors in zip(by_country, items, strict=True):  # one direction per country
        direction, residual, *_ = np.linalg.lstsq(vectors, logit, rcond=None)
        assert np.linalg.norm(direction) == pytest.approx(1.6)
        assert residual.sum() < 1e-6
    device = taste.logit(zero, user, latent, Requests(nothing.hour, nothing.device + 2))
    assert (device - base).std() > 0.5
    early, late = (
        taste.logit(zero, user, latent, Requests(np.full((4000, 1), h, np.float32), nothing.device))
        for h in (0, 23)
    )
    np.testing.assert_allclose(early - base, base - late, atol=1e-9)
    assert (early - base).std() > 1


def test_the_best_prediction_knows_the_bias_of_known_users_and_averages_that_of_others() -> None:
    taste = taste_of()
    user = np.arange(1990, 2010)
    logit = np.linspace(-3, 3, 20)[:, None] + taste.bias[user][:, None]
    best = taste.best(logit, user)
    np.testing.assert_allclose(best[:10], sigmoid(logit[:10]))
    drawn = np.random.default_rng(0).normal(0, BIAS, 400_000)
    without = (logit - taste.bias[user][:, None])[10:]
    np.testing.assert_allclose(best[10:, 0], sigmoid(without + drawn).mean(axis=1), atol=3e-3)


def test_the_prediction_without_features_is_the_mean_over_users_and_requests() -> None:
    taste = taste_of(users=400_000)
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((3, LATENT)).astype(np.float32)
    logit = np.array([-2.0, 0.0, 1.0])
    exact = taste.without_features(logit, latent)
    requests = Requests.draw(rng, (400_000, 3))
    drawn = taste.logit(logit + np.zeros((400_000, 1)), np.arange(400_000), latent, requests)
    np.testing.assert_allclose(exact, sigmoid(drawn).mean(axis=0), atol=3e-3)


def test_labels_follow_the_best_prediction(folder: Path, data: Data) -> None:
    """AUC of labels drawn anew from the prediction: the same, within its noise."""
    from training.synthetic import synthesize as synthesis
    from training.synthetic.click_model import ClickModel, plant_items

    items = plant_items(np.random.default_rng([3, synthesis.ITEMS]), 300, 50, 5, 32)
    clicks = ClickModel(items, 8, np.random.default_rng([3, synthesis.CLICKS]))
    taste = synthesis._taste(clicks, SIZES_HERE, 3)
    valid = data.valid
    assert valid.users is not None
    assert valid.request is not None
    ids = synthesis._user_id(np.arange(len(taste.country)), 3)
    number = {int(user): i for i, user in enumerate(ids)}
    user = np.array([number[int(u)] for u in valid.user])
    target = np.asarray(valid.target, np.int64)[:, None]
    requests = Requests(
        np.asarray(valid.request["hour"])[:, None],
        np.asarray(valid.request["device"], np.int64)[:, None],
    )
    logit = clicks.logit(np.asarray(valid.history, np.int64), target)
    p = taste.best(taste.logit(logit, user, items.latent[target], requests), user)[:, 0]
    assert auc(p, valid.label) == pytest.approx(truth(folder)["best_auc_valid"], abs=1e-12)
    for share in (0.1, 0.5, 0.9):
        near = np.abs(p - share) < 0.1
        assert abs(valid.label[near].mean() - p[near].mean()) < 0.06


def test_the_preset_is_trained_and_evaluated_by_known_and_new_users(tmp_path: Path) -> None:
    def run(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.output
        content = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(content, dict)
        return content

    folder, out = str(tmp_path / "data"), str(tmp_path / "checkpoint")
    sizes = ["--train", "8000", "--valid", "2000", "--test", "40", "--items", "100"]
    made = run("synthesize", folder, "--preset", "taste", *sizes)
    assert made["sizes"]["rows_per_user"] == SIZES["taste"].rows_per_user
    run("fit", folder, "--preset", "demo", "--epochs", "1", "--out", out)
    found = run("evaluate", out, folder)
    assert {"known user", "new user"} <= {part["slice"] for part in found["slices"]}
    assert found["share_of_the_possible"] < 1
