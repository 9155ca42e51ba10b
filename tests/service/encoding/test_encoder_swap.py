"""An encoder comes, is switched and goes with the version that needs it: none wrong, none mixed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.content_encoder import content_encoder
from tests.service.encoder_swap import (
    TAGS,
    TEXTS,
    USER,
    VERSIONS,
    Answers,
    Outcome,
    SwapWorld,
    load,
    make_swap_world,
    store_texts,
    switch_often,
    tell,
)
from tests.service.process import Service, serving

SWITCHES = 4
CLIENTS = 3


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> SwapWorld:
    made = make_swap_world(tmp_path_factory.mktemp("swap"))
    asyncio.run(store_texts(made))
    return made


@pytest.fixture(scope="module")
def service(swap: SwapWorld) -> Iterator[Service]:
    with serving(swap.models, swap.world.store, **swap.variables()) as running:
        yield running


def listed(service: Service) -> dict[str, dict[str, Any]]:
    with service.admin() as admin:
        found = admin.get("/admin/models").json()["models"]
    return {each["version"]: each for each in found}


def encoders_loaded(service: Service) -> float:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("qin_encoders_loaded")))


def answered(version: str, scores: list[float]) -> httpx.Response:
    body = {"scores": scores, "model_version": version}
    return httpx.Response(200, json=body, headers={"x-model-version": version})


def test_switching_under_load_gives_no_error_no_wrong_and_no_mixed_answer(
    swap: SwapWorld, service: Service
) -> None:
    outcome, answers = Outcome(), Answers(service, swap)
    for number, scores in enumerate(answers.crossed["model-a"]):
        answers.check(number, answered("model-a", scores), found := Outcome())
        assert (found.errors, found.wrong, found.mixed) == (0, 1, 1)
        one = [scores[0], *answers.scores["model-a"][number][1:]]  # of one candidate
        answers.check(number, answered("model-a", one), found := Outcome())
        assert (found.errors, found.wrong, found.mixed) == (0, 1, 1)
    with load(service, answers, outcome, CLIENTS):
        switch_often(service, SWITCHES, 0.1, outcome)
    assert (outcome.errors, outcome.wrong, outcome.mixed) == (0, 0, 0), outcome.said
    assert outcome.answers.keys() == VERSIONS.keys()
    assert outcome.vectors > 0


def test_each_version_shows_its_encoder_which_goes_with_it(
    swap: SwapWorld, service: Service
) -> None:
    with service.client() as client:
        for version in VERSIONS:
            tell(service, f"{version}/load").raise_for_status()
        found = listed(service)
        assert {v: each["encoder"]["version"] for v, each in found.items()} == VERSIONS
        for version, each in found.items():
            assert each["encoder"]["content"] == each["content"]["digest"], version
        assert encoders_loaded(service) == 2
        for version, encoder in VERSIONS.items():
            tell(service, f"{version}/activate").raise_for_status()
            assert client.get("/readyz").json()["encoder"] == encoder
            answer = client.post("/v1/embeddings", json={"input": "das Haus"})
            assert answer.headers["x-model-version"] == encoder
            shown = client.get("/metrics").text
            assert f'version="{encoder}"' in shown.split("qin_encoder_info{")[1].split("}")[0]
        first, last = VERSIONS
        named = client.post("/v1/embeddings", json={"input": "a", "model": VERSIONS[first]})
        assert named.headers["x-model-version"] == VERSIONS[first]
        tell(service, f"{first}/unload").raise_for_status()
        assert encoders_loaded(service) == 1
        gone = client.post("/v1/embeddings", json={"input": "a", "model": VERSIONS[first]})
        assert gone.status_code == 404
        tell(service, "rollback").raise_for_status()
        assert client.get("/readyz").json()["encoder"] == VERSIONS[first]
    log = service.log.read_text()
    commands = [line for line in log.splitlines() if "admin" in line and "rollback" in line]
    assert any(VERSIONS[first] in line for line in commands), commands
    assert f'"encoder": "{VERSIONS[last]}"' in log or f'"encoder":"{VERSIONS[last]}"' in log


def test_a_version_whose_encoder_is_missing_or_damaged_is_refused_by_name(
    swap: SwapWorld, tmp_path: Path
) -> None:
    encoders = tmp_path / "encoders"
    shutil.copytree(swap.encoders / "words-a", encoders / "words-a")
    variables = {**swap.variables(), "QIN_ENCODER": str(encoders), "QIN_MODEL_POLICY": "manual"}
    with (
        serving(swap.models, swap.world.store, **variables) as running,
        running.client() as client,
    ):
        assert client.get("/readyz").json()["model_version"] == "model-a"
        refused = tell(running, "model-b/activate")
        assert refused.status_code == 422
        assert "no encoder makes contents of digest" in refused.json()["detail"]
        assert "words-a" in refused.json()["detail"]
        shutil.copytree(swap.encoders / "words-b", encoders / "words-b")
        weights = bytearray((encoders / "words-b" / "encoder.weights").read_bytes())
        weights[7] ^= 1
        (encoders / "words-b" / "encoder.weights").write_bytes(bytes(weights))
        refused = tell(running, "model-b/activate")
        assert refused.status_code == 422
        assert "its encoder" in refused.json()["detail"]
        assert "encoder.weights: sha-256" in refused.json()["detail"]
        assert client.get("/readyz").json()["model_version"] == "model-a"
        shutil.rmtree(encoders / "words-b")
        shutil.copytree(swap.encoders / "words-b", encoders / "words-b")
        tell(running, "model-b/activate").raise_for_status()
        body = {"user_id": USER, "candidates": [{"text": TEXTS[0], "features": TAGS}]}
        answer = client.post("/v1/score", json=body)
        assert answer.headers["x-model-version"] == "model-b"
        assert answer.json()["without_content"] == []


def test_a_version_that_names_no_contents_comes_with_the_newest_encoder(
    swap: SwapWorld, tmp_path: Path
) -> None:
    later = content_encoder(tmp_path, "words-z", 9)
    encoders = tmp_path / "encoders"
    shutil.copytree(swap.encoders, encoders)
    shutil.copytree(later, encoders / "words-z")
    variables = {**swap.variables(), "QIN_ENCODER": str(encoders)}
    with (
        serving(swap.world.models, swap.world.store, **variables) as running,
        running.client() as client,
    ):
        assert client.get("/readyz").json()["encoder"] == "words-z"
