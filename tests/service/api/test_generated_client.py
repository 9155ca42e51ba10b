"""A client's types, generated from the OpenAPI document by another project's generator, hold every
id: sent as numbers or as strings, and read from the answer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from pydantic import ValidationError

from feature_store.contract import MAX_ID
from tests.service.world import World

OPTIONS = ("--input-file-type", "openapi", "--openapi-scopes", "schemas", "paths")
KIND = ("--output-model-type", "pydantic_v2.BaseModel", "--formatters", "builtin")


@pytest.fixture(scope="module")
def generated(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    pytest.importorskip("datamodel_code_generator", reason="of the extra dev")
    folder = tmp_path_factory.mktemp("generated")
    document, code = folder / "openapi.json", folder / "generated_client.py"
    document.write_bytes(client.get("/openapi.json").content)
    files = ("--input", str(document), "--output", str(code))
    command = [sys.executable, "-m", "datamodel_code_generator", *files, *OPTIONS, *KIND]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "not understood" not in ran.stderr  # of a format
    return imported(code)


def imported(code: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(code.stem, code)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[code.stem] = module  # for its annotations, which are resolved by name
    spec.loader.exec_module(module)
    return module


def large(world: World) -> list[int]:
    return [item for item in world.ids.tolist() if item > 2**53][:3]


@pytest.mark.parametrize("as_text", [False, True])
def test_the_largest_ids_are_scored(
    generated: ModuleType, world: World, client: httpx.Client, as_text: bool
) -> None:
    kind = str if as_text else int
    items = [kind(item) for item in large(world)]
    request = generated.V1ScorePostRequest(
        user_id=kind(MAX_ID), candidates=[*items, kind(MAX_ID)], ids_as_strings=as_text
    )
    answer = client.post("/v1/score", content=request.model_dump_json())
    assert answer.status_code == 200, answer.text
    found = generated.ScoreAnswer.model_validate_json(answer.content)
    assert found.item_ids == [*items, kind(MAX_ID)]
    assert found.unknown_items == [kind(MAX_ID)]
    assert found.cold_user is False


@pytest.mark.parametrize("as_text", [False, True])
def test_a_click_of_the_largest_ids_is_taken(
    generated: ModuleType, client: httpx.Client, as_text: bool
) -> None:
    kind = str if as_text else int
    event = generated.V1EventsPostRequest1(user_id=kind(MAX_ID - 7), item_id=kind(MAX_ID))
    body = event.model_dump_json(exclude_none=True)
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/events", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert generated.EventsAnswer.model_validate_json(answer.content).applied == 1


@pytest.mark.parametrize("wrong", [-1, MAX_ID + 1, "x", "-1", str(MAX_ID + 1)])
def test_what_is_no_id_is_refused_before_it_is_sent(
    generated: ModuleType, wrong: int | str
) -> None:
    with pytest.raises(ValidationError):
        generated.V1ScorePostRequest(user_id=wrong, candidates=[1])
