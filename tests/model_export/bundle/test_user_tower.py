"""The user's side of a request: one row for all candidates, with all, some or no features given."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from feature_store.schema import FeatureSchema
from model_export.__main__ import app
from model_export.build import build
from model_export.bundle.bundle import Bundle, read_manifest
from model_export.bundle.errors import BundleError, ParityError
from model_export.bundle.manifest import FORMAT, table_file
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.verify import verify
from model_export.quality.golden_cases import golden_answers
from model_export.quality.random_network import random_network
from tests.model_export.answers import candidates, folded, in_float64, random_request, user_of
from tests.model_export.schemas import LEVELS, LEVELS_SIZES, REQUEST_ONLY, SMALL_SIZES, USER_ONLY
from training.qin import QIN

MAPPED = ("user_id", "followed")  # of LEVELS: the tables of more than 1 MiB


@pytest.fixture(scope="module")
def published(levels: QIN, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(levels, tmp_path_factory.mktemp("models"), version="levels")


@pytest.fixture(scope="module")
def of_levels(published: Bundle) -> FoldedModel:
    return FoldedModel(published)


@pytest.mark.parametrize("schema", [LEVELS, REQUEST_ONLY, USER_ONLY], ids=lambda s: s.name)
@pytest.mark.parametrize("sizes", [LEVELS_SIZES, SMALL_SIZES], ids=["biased", "unbiased"])
def test_any_user_and_request_is_answered_as_by_the_network(
    schema: FeatureSchema, sizes, tmp_path: Path
) -> None:
    network = random_network(schema, sizes, seed=4)
    model = FoldedModel(build(network, tmp_path))
    for seed in range(30):
        request = random_request(schema, length=seed % (schema.history_length + 1), seed=seed)
        assert_allclose(folded(model, request), in_float64(network, request), atol=2e-6)


def test_users_and_requests_change_the_answer(of_levels: FoldedModel) -> None:
    items = of_levels.items(random_request(LEVELS, length=3).items)
    history = of_levels.history(items.vector[:3])
    user = np.zeros(1, LEVELS.user_dtype)
    user["user_id"] = 70_000
    answers = [
        of_levels.rank(items, history, of_levels.user(*given))
        for given in ((None, {}), (user, {}), (None, {"device": 3}), (None, {"hour": 7.5}))
    ]
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert np.abs(one - other).max() > 1e-4


def test_unknown_indices_and_missing_features_are_those_of_no_record(
    of_levels: FoldedModel,
) -> None:
    unknown = of_levels.user()
    assert unknown is not None
    user = np.zeros(1, LEVELS.user_dtype)
    for index in (0, -1, 70_001, 2**31 - 1):
        user["user_id"] = user["country"] = user["likes"] = index
        given = of_levels.user(user, {"device": index, "hour": float("nan")})
        assert given is not None
        np.testing.assert_array_equal(given.row, unknown.row)
        assert given.defaulted == ("user_id", "country", "device", "hour")
    assert unknown.defaulted == (*LEVELS.user_dtype.names, "device", "hour")
    user["user_id"] = user["country"] = 1
    known = of_levels.user(user, {"device": 1, "hour": 0.0})
    assert known is not None
    assert known.defaulted == ()
    assert of_levels.user(None, {"device": None}).defaulted == unknown.defaulted


def test_a_missing_number_is_the_mean_of_training(levels: QIN, of_levels: FoldedModel) -> None:
    mean = float(levels.request_vector.embedding["hour"].mean)
    at_mean, missing = of_levels.user(None, {"hour": mean}), of_levels.user(None, {})
    assert at_mean is not None
    assert missing is not None
    assert_allclose(at_mean.row, missing.row, atol=1e-6)


def test_a_schema_without_user_and_request_features_has_no_user(model: FoldedModel) -> None:
    assert model.user() is None
    assert model.user(np.zeros(1, "<i4,<i4"), {"device": 1}) is None
    assert "user_tower" not in model.signatures()


def test_no_user_is_a_user_of_whom_nothing_is_known(of_levels: FoldedModel) -> None:
    items = of_levels.items(random_request(LEVELS, length=3).items)
    history = of_levels.history(items.vector[:3])
    np.testing.assert_array_equal(
        of_levels.rank(items, history), of_levels.rank(items, history, of_levels.user())
    )


def test_every_way_of_ranking_takes_the_user(levels: QIN, of_levels: FoldedModel) -> None:
    request = random_request(LEVELS, length=5, seed=3)
    vectors = of_levels.items(request.items)
    history, asked = (
        of_levels.history(vectors.vector[request.history]),
        candidates(of_levels, request),
    )
    user = user_of(of_levels, request)
    expected = in_float64(levels, request)
    probability, logit = of_levels.rescore(asked, history, user)
    assert_allclose(of_levels.exact(asked, history, user), expected, atol=2e-6)
    assert_allclose(probability, expected, atol=2e-6)
    assert_allclose(logit, of_levels.logits(asked, history, user=user), atol=1e-5)
    plain = of_levels.explain(asked, history, 2)
    np.testing.assert_array_equal(
        of_levels.explain(asked, history, 2, user=user).position, plain.position
    )


def test_large_tables_are_files_that_are_mapped_and_not_copied(
    published: Bundle, of_levels: FoldedModel, levels: QIN
) -> None:
    assert published.manifest.mapped == set(MAPPED)
    assert of_levels._user_tower is not None
    for name in MAPPED:
        table = of_levels._user_tower.tables[name]
        assert isinstance(table.base, np.memmap)
        assert not table.flags.writeable
        trained = levels.user_vector.embedding[name].weight.detach().numpy()
        np.testing.assert_array_equal(table, trained)
    tower = (published.path / "user_tower.weights").stat().st_size
    assert tower < min((published.path / table_file(n)).stat().st_size for n in MAPPED)


@pytest.mark.parametrize("damage", ["absent", "shape", "type", "text"])
def test_a_damaged_table_is_refused_by_name(damage: str, published: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / published.version
    shutil.copytree(published.path, copy)
    file = copy / table_file("user_id")
    match damage:
        case "absent":
            file.unlink()
        case "shape":
            np.save(file, np.zeros((3, 4), np.float32))
        case "type":
            np.save(file, np.zeros((70_001, 4)))
        case "text":
            file.write_text("none")
    with pytest.raises(BundleError, match=r"user_id\.table\.npy"):
        FoldedModel(Bundle(copy, published.manifest))
    with pytest.raises(BundleError, match=r"user_id\.table\.npy"):
        verify(copy)


def test_a_table_that_is_not_the_networks_is_not_published(
    levels: QIN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(file: Path, table: np.ndarray) -> None:
        with file.open("wb") as out:
            np.lib.format.write_array(out, np.roll(table, 1, axis=0))

    monkeypatch.setattr(np, "save", shifted)
    with pytest.raises(ParityError, match=r"is not published.*user"):
        build(levels, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_is_of_a_format_that_earlier_releases_refuse(published: Bundle) -> None:
    manifest = read_manifest(published.path)
    assert manifest.format == FORMAT == 3
    assert "user_tower" in manifest.graphs
    assert manifest.multiply_adds.user > 0
    assert manifest.sizes.output_bias
    verify(published.path)


def test_info_shows_features_by_role_and_their_cost(published: Bundle) -> None:
    shown = CliRunner().invoke(app, ["info", str(published.path)], env={"COLUMNS": "200"}).output
    for line in (
        r"  user_id +│ user, identity, categorical, 70,001 values, width 4",
        r"  taste +│ user, dense, 4 × float16, width 3",
        r"  hour +│ request, number, width 2",
        r"  likes_level +│ item and context, categorical, 11 values, width 4",
        r"  slot +│ context, categorical, 3 values, width 2",
        rf"{published.manifest.multiply_adds.user:,} per request: user and request features",
        r"mapped tables +│ +2\.1 MiB, one copy per machine: followed, user_id",
    ):
        assert re.search(line, shown), line


def test_golden_answers_know_every_way_of_not_being_known(levels: QIN) -> None:
    names = set(golden_answers(levels).names)
    for name in (
        "no user record",
        "user: user_id 0",
        "user: user_id out of range",
        "user: likes all padding",
        "user: taste all zero",
        "request: device 0",
        "request: hour nan",
        "request: no features",
        "no user record, no request features",
    ):
        assert name in names
