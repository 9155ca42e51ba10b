"""The protocol's repository routes: ``tritonclient`` at the admin port moves the hot swap."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.service.api.oip.raw import refused
from tests.service.api.oip.triton import MODEL, Asked, same_bits, triton_client
from tests.service.lifecycle.conftest import Swapping, two_versions
from tests.service.process import Service, serving

TOKEN = "a-token-that-is-long-enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LOAD = "/v2/repository/models/qin/load"


@pytest.fixture
def operator(swapping: Swapping) -> Iterator[triton.InferenceServerClient]:
    """At the admin port."""
    with triton_client(swapping.service.admin_port) as client:
        yield client


def states(operator: triton.InferenceServerClient) -> dict[str, str]:
    index = operator.get_model_repository_index()
    assert {entry["name"] for entry in index} == {MODEL}
    return {entry["version"]: entry["state"] for entry in index}


def status(refusal: pytest.ExceptionInfo[InferenceServerException]) -> str:
    return str(refusal.value.status())


def test_loading_the_model_answers_with_what_is_newest(
    swapping: Swapping, operator: triton.InferenceServerClient
) -> None:
    assert states(operator) == {"small-1": "READY", "small-2": "UNAVAILABLE"}
    swapping.serves("small-1")
    for _ in range(2):
        operator.load_model(MODEL)
        swapping.serves("small-2")
    assert states(operator) == {"small-1": "READY", "small-2": "READY"}
    index = operator.get_model_repository_index
    assert all(entry["reason"] == "" for entry in index())


def test_a_version_is_loaded_and_unloaded_by_its_own_name(
    swapping: Swapping, operator: triton.InferenceServerClient
) -> None:
    asked = Asked(3, swapping.world.ids[:20])
    with triton_client(swapping.service.port) as client:
        operator.load_model(f"{MODEL}/versions/small-2")
        swapping.serves("small-1")
        versions = client.get_model_metadata(MODEL)["versions"]
        assert versions == ["small-1", "small-2"]
        told = client.get_inference_statistics(MODEL)["model_stats"]
        assert [entry["version"] for entry in told] == versions

        for version in versions:
            answer = client.infer(MODEL, asked.inputs(), model_version=version)
            assert answer.get_response()["model_version"] == version
            v1 = swapping.score(model_version=version).json()["scores"]
            same_bits(answer.as_numpy("score"), np.array(v1, np.float32))

        operator.unload_model(f"{MODEL}/versions/small-2")
        assert states(operator)["small-2"] == "UNAVAILABLE"
        assert not client.is_model_ready(MODEL, "small-2")
        with pytest.raises(InferenceServerException) as refusal:
            client.infer(MODEL, asked.inputs(), model_version="small-2")
        assert status(refusal) == "404"
        same_bits(
            client.infer(MODEL, asked.inputs()).as_numpy("score"), asked.scores(swapping.client)
        )


def test_what_would_leave_nobody_to_answer_is_a_conflict(guarded: Service) -> None:
    with triton_client(guarded.admin_port) as operator, guarded.admin(TOKEN) as admin:
        for name in (MODEL, f"{MODEL}/versions/small-2", f"{MODEL}/versions/active"):
            with pytest.raises(InferenceServerException) as refusal:
                operator.unload_model(name, headers=BEARER, unload_dependents=True)
            assert status(refusal) == "409"
        assert ready(admin) == ["small-2"]


def test_inline_files_and_configurations_are_refused(guarded: Service) -> None:
    with triton_client(guarded.admin_port) as operator, guarded.admin(TOKEN) as admin:
        files = {"file:1/model.onnx": b"abc"}
        with pytest.raises(InferenceServerException, match="a bundle brings its own") as refusal:
            operator.load_model(MODEL, headers=BEARER, config="{}", files=files)
        assert status(refusal) == "400"
        alone = {"parameters": {"file:1/model.onnx": base64.b64encode(b"abc").decode()}}
        assert "file:1/model.onnx" in refused(admin.post(LOAD, json=alone))
        assert ready(admin) == ["small-2"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", 400),
        (b"{", 400),
        (b'{"parameters": 3}', 400),
        (b'{"parameters": {"x": 1}}', 400),
        (b'{"parameters": {"config": 1, "config": 2}}', 400),
        (b" " * 65_537, 413),
    ],
)
def test_a_wrong_body_is_refused_and_nothing_moves(
    guarded: Service, body: bytes, code: int
) -> None:
    with guarded.admin(TOKEN) as admin:
        refused(admin.post(LOAD, content=body), code)
        refused(admin.post("/v2/repository/index", content=b'{"ready": 1}'))
        assert ready(admin) == ["small-2"]


def test_models_and_versions_that_are_not_there_are_404s(guarded: Service) -> None:
    with guarded.admin(TOKEN) as admin:
        for path in ("bert", "qin/versions/small-9", f"qin/versions/{'v' * 99}"):
            for verb in ("load", "unload"):
                refused(admin.post(f"/v2/repository/models/{path}/{verb}"), 404)
        assert ready(admin) == ["small-2"]


def test_without_the_token_nothing_is_told_or_done(guarded: Service) -> None:
    with guarded.admin("wrong-but-long-enough") as admin:
        for path in ("index", "models/qin/load", "models/qin/versions/small-1/unload"):
            answer = admin.post(f"/v2/repository/{path}")
            assert "QIN_ADMIN_TOKEN" in refused(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    with guarded.client() as client:
        refused(client.post("/v2/repository/index"), 404)  # not on the public port


def ready(admin: httpx.Client) -> list[str]:
    index = admin.post("/v2/repository/index", json={"ready": True}).json()
    return [entry["version"] for entry in index]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    world, _ = two_versions(tmp_path_factory.mktemp("guarded"))
    variables = {"QIN_ADMIN_TOKEN": TOKEN, "QIN_MODEL_POLICY": "manual"}
    with serving(world.models, world.store, **variables) as service:
        yield service
