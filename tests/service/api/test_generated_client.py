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
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.world import World

OPTIONS = ("--input-file-type", "openapi", "--openapi-scopes", "schemas", "paths")
KIND = ("--output-model-type", "pydantic_v2.BaseModel", "--formatters", "builtin")


@pytest.fixture(scope="module")
def generated(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return generated_from(client, tmp_path_factory.mktemp("generated"), "generated_client")


@pytest.fixture(scope="module")
def generated_of_texts(texts: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """From the document of a service whose ids are texts."""
    return generated_from(texts, tmp_path_factory.mktemp("texts"), "generated_client_of_texts")


def generated_from(client: httpx.Client, folder: Path, name: str) -> ModuleType:
    pytest.importorskip("datamodel_code_generator", reason="of the extra dev")
    document, code = folder / "openapi.json", folder / f"{name}.py"
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


def test_texts_are_scored_and_read(
    generated_of_texts: ModuleType, mapped: MappedWorld, texts: httpx.Client
) -> None:
    items = [*mapped.items[:3], "never seen", "🎬" * 128]
    request = generated_of_texts.V1ScorePostRequest(
        user_id=text_of(3), candidates=items, history=mapped.items[3:6], explain=2
    )
    answer = texts.post("/v1/score", content=request.model_dump_json())
    assert answer.status_code == 200, answer.text
    found = generated_of_texts.ScoreAnswer.model_validate_json(answer.content).model_dump()
    assert found["item_ids"] == items
    assert found["unknown_items"] == items[3:]
    assert any(explained and explained["item_ids"] for explained in found["explanations"])


def test_a_click_of_texts_is_taken(generated_of_texts: ModuleType, texts: httpx.Client) -> None:
    event = generated_of_texts.V1EventsPostRequest1(user_id="generated", item_id="é" * 128)
    body = event.model_dump_json(exclude_none=True)
    answer = texts.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert generated_of_texts.EventsAnswer.model_validate_json(answer.content).applied == 1


@pytest.mark.parametrize("wrong", ["", "a" * 129, 7, None])
def test_what_is_no_text_is_refused_before_it_is_sent(
    generated_of_texts: ModuleType, wrong: object
) -> None:
    with pytest.raises(ValidationError):
        generated_of_texts.V1ScorePostRequest(user_id=wrong, candidates=["a"])
