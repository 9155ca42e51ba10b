"""Of an encoder that was trained for shorter vectors, their beginnings are vectors, too."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from service.api.embeddings import beginning
from tests.service.in_process import client_of, opened
from tests.service.world import World
from tests.text import small
from text.encoder.checkpoint import TRAINING
from text.export.build import build
from text.runtime.bundle import EncoderBundle
from text.runtime.manifest import EncoderManifest

TEXT = "das Haus mit dem Baum"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("widths")
    checkpoint = small.checkpoint(folder / "checkpoint")
    training = json.loads((checkpoint / TRAINING).read_text())
    training["recipe"]["multi_task"] = {"steps": 9, "longest": 64, "matryoshka": True}
    (checkpoint / TRAINING).write_text(json.dumps(training))
    return build(checkpoint, folder, version="words-w", longest=small.LONGEST).path


def test_the_manifest_has_the_widths_of_the_recipe(trained: Path, encoder_bundle: Path) -> None:
    assert EncoderBundle.open(trained).manifest.dimensions == [24, 12, 6, 3]
    plain = EncoderBundle.open(encoder_bundle).manifest
    assert plain.dimensions == [24]
    assert "widths" not in plain.model_dump(mode="json")
    with pytest.raises(ValueError, match="beginnings are below 24"):
        EncoderManifest.model_validate({**plain.model_dump(mode="json"), "widths": [24]})


async def test_dimensions_gives_beginnings_of_length_1(world: World, trained: Path) -> None:
    async with opened(world, encoder=trained) as state, client_of(state) as client:
        body = {"input": [TEXT], "late_chunking": [[[0, 8]]]}
        whole = (await client.post("/v1/embeddings", json=body)).json()["data"][0]
        for width in (12, 6, 3):
            answer = await client.post("/v1/embeddings", json={**body, "dimensions": width})
            assert answer.status_code == 200, answer.text
            (entry,) = answer.json()["data"]
            pairs = [(entry, whole), (entry["chunks"][0], whole["chunks"][0])]
            for found, long in pairs:
                expected = np.array(long["embedding"][:width])
                expected /= np.linalg.norm(expected)
                assert np.abs(np.array(found["embedding"]) - expected).max() <= 1e-6
        asked = {**body, "dimensions": 6, "encoding_format": "base64"}
        (entry,) = (await client.post("/v1/embeddings", json=asked)).json()["data"]
        assert len(np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")) == 6
        refused = await client.post("/v1/embeddings", json={**body, "dimensions": 8})
        assert refused.status_code == 422
        assert "trained for 24 or 12 or 6 or 3" in refused.json()["detail"]


def test_a_beginning_without_a_length_stays_as_it_is() -> None:
    vector = np.array([0, 0, 1], np.float32)
    assert beginning(vector, 2).tolist() == [0, 0]
    assert beginning(vector, None) is vector
