"""``QIN_PRECISION=auto``: measured in the sandbox, once per machine, the same in every process."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from model_export.build import Int8, build
from model_export.bundle.bundle import Bundle
from model_export.bundle.modes import Choice
from model_export.quality import gate
from model_export.quality.random_rows import random_held_out
from service.artifacts import chosen_mode, sandbox
from service.lifecycle.execution import Execution
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.world import World

REASON = "int8 on cpu: it takes 0.40 of the time of fp32 on cpu"
INT8_CHOICE = Choice("int8", "cpu", REASON, "int8", {"int8 on cpu": 4.0}, {})


@pytest.fixture(scope="module")
def passing(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same network, with an int8 ranker whose gate passed: its limits were wider."""
    with pytest.MonkeyPatch.context() as wide:
        wide.setattr(gate, "MOST_DELTA_AUC", 1.0)
        wide.setattr(gate, "MOST_MEAN_DELTA_P", 1.0)
        models = tmp_path_factory.mktemp("passing")
        bundle = build(world.network, models, int8=Int8(random_held_out(world.network)))
    assert bundle.manifest.quantisation is not None
    assert bundle.manifest.quantisation.passed
    return replace(world, models=models, bundle=bundle)


@pytest.fixture
def private(tmp_path: Path) -> dict[str, Any]:
    return {"precision": "auto", "private": tmp_path / "private"}


def remembered(private: dict[str, Any]) -> Path:
    (file,) = private["private"].glob("*/copies/*/mode-cpu.json")
    return Path(file)


async def test_a_start_measures_in_the_sandbox_and_a_restart_remembers(
    passing: World, private: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as told:
        async with opened(passing, **private) as state, client_of(state) as client:
            first = (await client.get("/readyz")).json()
    line = next(line for line in told if line["event"] == "precision")
    assert set(line["us_per_candidate"]) == {"fp32 on cpu", "int8 on cpu"}
    assert line["passed_over"] == {}
    assert first["precision_reason"] == line["reason"]
    assert "of its time" in line["reason"] or "of the time of fp32" in line["reason"]

    file = remembered(private)
    content = json.loads(file.read_bytes())
    assert content["choice"]["precision"] == first["precision"]
    other = "fp32" if first["precision"] == "int8" else "int8"
    content["choice"] |= {"precision": other, "top_k": other, "reason": "as it was measured"}
    file.write_text(json.dumps(content))
    monkeypatch.setattr(sandbox, "start", None)  # it would fail
    async with opened(passing, **private) as state, client_of(state) as client:
        again = (await client.get("/readyz")).json()
    assert (again["precision"], again["precision_reason"]) == (other, "as it was measured")


@pytest.mark.parametrize("changed", ["machine", "rows", "content"])
async def test_what_was_measured_elsewhere_or_is_damaged_is_measured_again(
    changed: str, passing: World, private: dict[str, Any]
) -> None:
    async with opened(passing, **private):
        pass
    file = remembered(private)
    content = json.loads(file.read_bytes())
    content["choice"]["reason"] = "stale"
    wrong = {"machine": "another", "rows": 7, "content": None}[changed]
    file.write_text("{" if wrong is None else json.dumps(content | {changed: wrong}))
    async with opened(passing, **private) as state:
        assert state.ready().model.placement.reason != "stale"
    assert b"stale" not in file.read_bytes()


async def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop_the_start(
    passing: World, private: dict[str, Any]
) -> None:
    async with opened(passing, **private):
        pass
    file = remembered(private)
    file.unlink()
    file.mkdir()  # a rename onto it fails, as on a full disk
    with capture_logs() as told:
        async with opened(passing, **private) as state:
            assert state.ready().model.placement.reason
    said = next(line for line in told if line["event"].startswith("mode not remembered"))
    assert "cannot be written" in said["reason"]


def test_one_process_measures_while_the_others_wait(passing: World) -> None:
    with chosen_mode.measuring(passing.bundle) as ours:
        assert ours
        with chosen_mode.measuring(passing.bundle) as theirs:
            assert not theirs
    with chosen_mode.measuring(passing.bundle) as ours:
        assert ours


def test_a_measured_mode_is_opened_and_said(passing: World) -> None:
    with capture_logs() as told:
        model = Execution("auto").open(passing.bundle, INT8_CHOICE)
    assert (model.precision, model.placement.provider) == ("int8", "cpu")
    assert model.placement.reason == told[-1]["reason"] == INT8_CHOICE.reason
    assert told[-1]["us_per_candidate"] == {"int8 on cpu": 4.0}


def test_int8_that_has_become_another_arithmetic_is_left_for_float32(passing: World) -> None:
    found = passing.bundle.manifest.quantisation
    assert found is not None
    changes = {"quantisation": found.model_copy(update={"golden_logit_error": 1e-6})}
    elsewhere = Bundle(passing.bundle.path, passing.bundle.manifest.model_copy(update=changes))
    with capture_logs() as told:
        model = Execution("auto").open(elsewhere, INT8_CHOICE)
    assert model.precision == "fp32"
    assert "this processor computes it differently" in told[-1]["reason"]
    assert model.placement.reason == told[-1]["reason"]


async def test_a_second_process_waits_for_the_first_and_takes_its_choice(
    passing: World, private: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(passing, **private):
        pass
    remembered(private).unlink()
    (folder,) = private["private"].glob("*/copies/*/")
    copy = Bundle.open(next(path for path in folder.iterdir() if path.is_dir()))
    monkeypatch.setattr(sandbox, "start", None)  # it would fail

    async def second() -> str | None:
        async with opened(passing, **private) as state:
            return state.ready().model.placement.reason

    with chosen_mode.measuring(copy):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.5)
        assert not waiting.done()
        chosen_mode.note(copy, "cpu", 128, INT8_CHOICE)
    assert await waiting == INT8_CHOICE.reason


async def test_top_k_in_int8_beside_scores_in_float32(
    passing: World, private: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"user_id": 3, "candidates": passing.ids[:100].tolist()}
    async with opened(passing, private=private["private"]) as plain:
        every, best = (await ask(plain, **body)).json(), (await ask(plain, **body, top_k=10)).json()
        assert metric(plain, "qin_top_k_rescored_total") == 0
    choice = replace(INT8_CHOICE, precision="fp32")
    monkeypatch.setattr(chosen_mode, "recall", lambda *_: choice)
    async with opened(passing, **private, top_k_recheck=1.0) as state:
        async with client_of(state) as client:
            ready = (await client.get("/readyz")).json()
        assert (ready["precision"], ready["top_k_precision"]) == ("fp32", "int8")
        assert (await ask(state, **body)).json()["scores"] == every["scores"]
        found = (await ask(state, **body, top_k=10)).json()
        assert (found["item_ids"], found["scores"]) == (best["item_ids"], best["scores"])
        assert 10 <= metric(state, "qin_top_k_rescored_total") < 100
