"""Request features that are sent: as a bundle's schema and golden answers say, or a file's rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from feature_store.schema import FeatureSchema
from loadtest.generator.request_features import FeaturesError, RequestFeatures, read_features
from loadtest.generator.workload import SCORE, Workload
from model_export.build import build
from model_export.quality.random_network import random_network
from tests.service.user_world import LEVELLED, SIZES
from tests.service.world import SMALL, SMALL_SIZES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain version, one with features, and one of whose features some have another size."""
    folder = tmp_path_factory.mktemp("features") / "models"
    build(random_network(SMALL, SMALL_SIZES), folder, version="plain")
    network = random_network(LEVELLED, SIZES)
    hour = network.request_vector.embedding["hour"]
    hour.mean.fill_(14.0)  # type: ignore[union-attr, operator]
    hour.deviation.fill_(3.0)  # type: ignore[union-attr, operator]
    build(network, folder, version="levels")
    content = LEVELLED.model_dump(mode="json")
    content["request"] = [{"name": "device", "kind": "categorical", "vocabulary": 4, "width": 3}]
    build(random_network(FeatureSchema.model_validate(content), SIZES), folder, version="other")
    return folder


def test_features_are_drawn_as_the_bundles_say(models: Path) -> None:
    found = read_features(str(models / "levels"))
    assert found.vocabularies == {"device": 6}
    mean, deviation = found.numbers["hour"]
    assert mean == pytest.approx(14, abs=2)
    assert deviation == pytest.approx(3, abs=1.5)
    rows = found.draw(np.random.default_rng(0), 5000, missing=0.2)
    for name in ("device", "hour"):
        assert np.mean([name in row for row in rows]) == pytest.approx(0.8, abs=0.03)
    assert {row["device"] for row in rows if "device" in row} == set(range(6))
    hours = [row["hour"] for row in rows if "hour" in row]
    assert np.mean(hours) == pytest.approx(mean, abs=0.3)
    assert np.std(hours) == pytest.approx(deviation, rel=0.1)


def test_of_a_folder_every_versions_features_are_sent_within_the_smallest_vocabulary(
    models: Path,
) -> None:
    found = read_features(str(models))
    assert (found.vocabularies, list(found.numbers)) == ({"device": 4}, ["hour"])


def test_rows_of_a_file_are_sent_whole(tmp_path: Path) -> None:
    rows = {"device": [1, 2, None], "hour": [8.5, np.inf, np.nan]}
    parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    found = read_features(str(tmp_path / "rows.parquet"))
    assert found == RequestFeatures(rows=[{"device": 1, "hour": 8.5}, {"device": 2}, {}])
    drawn = found.draw(np.random.default_rng(0), 60, missing=0)
    assert {tuple(row.items()) for row in drawn} == {tuple(row.items()) for row in found.rows}


def test_sources_without_features_are_refused_by_name(models: Path, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"country": ["de"]}), tmp_path / "texts.parquet")
    parquet.write_table(pa.table({"device": pa.array([], pa.int64())}), tmp_path / "none.parquet")
    for source, reason in (
        (models / "plain", "no bundle with request features"),
        (tmp_path / "nothing", "no bundle with request features"),
        (tmp_path / "nothing.parquet", "nothing.parquet"),
        (tmp_path / "texts.parquet", "column country holds string, not numbers"),
        (tmp_path / "none.parquet", "holds no rows"),
    ):
        with pytest.raises(FeaturesError, match=f"^features: .*{reason}"):
            read_features(str(source))


@pytest.mark.parametrize("ids", ["numeric", "mapped"])
def test_requests_with_features_are_else_those_without(models: Path, ids: str) -> None:
    plain = Workload(users="1..200", candidates="1..20", events=0.2, top_k=5)
    before = plain.documents(2000, 4, ids)  # type: ignore[arg-type]
    after = replace(plain, features=str(models)).documents(2000, 4, ids)  # type: ignore[arg-type]
    assert after == replace(plain, features=str(models)).documents(2000, 4, ids)  # type: ignore[arg-type]
    strangers = 0
    for (kind, old), (same, new) in zip(before, after, strict=True):
        features = new.pop("features", None)
        assert (kind, features is not None) == (same, kind == SCORE)
        if old["user_id"] != new["user_id"]:
            strangers += 1
            assert kind == SCORE
            stranger, user = new["user_id"], old["user_id"]
            assert type(stranger) is type(user)
            assert str(stranger) not in map(str, range(1, 201))
            new["user_id"] = user
        assert orjson.dumps(old) == orjson.dumps(new)
    assert 100 < strangers < 220
