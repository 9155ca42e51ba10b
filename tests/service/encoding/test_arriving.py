"""An encoder may come after the version that needs it, which is then tried again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.encoding.repository import EncoderRepository, FoundEncoder
from service.lifecycle.watcher import FIRST_WAIT_S
from service.state import ServiceState
from tests.service.encoder_swap import SwapWorld, make_swap_world
from tests.service.in_process import opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SwapWorld:
    return make_swap_world(tmp_path_factory.mktemp("swap"))


@pytest.fixture
def early(made: SwapWorld, tmp_path: Path) -> SwapWorld:
    """Both versions are there, and the encoder of the first alone."""
    models = Path(shutil.copytree(made.models, tmp_path / "versions"))
    encoders = tmp_path / "encoders"
    shutil.copytree(made.encoders / "words-a", encoders / "words-a")
    return SwapWorld(made.world, models, made.crossed, encoders)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``now`` of the back-off."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("service.lifecycle.watcher.monotonic", lambda: clock.now)
    return clock


def variables(swap: SwapWorld) -> dict[str, Any]:
    return {
        "bundle": swap.models,
        "encoder": swap.encoders,
        "content_share": 0,
        "model_policy": "newest",
        "private": swap.models.parent / "private",
    }


async def look(state: ServiceState) -> list[str]:
    """Look for newer versions once; list what was tried."""
    tried = []
    for found in state.watcher._look():
        tried.append(found.version)
        if await state.watcher._try(found):
            break
    return tried


def active(state: ServiceState) -> str:
    version = state.registry.active
    assert version is not None
    return version.name


def be_absent(encoder: Path) -> None:
    shutil.rmtree(encoder)


def be_half_copied(encoder: Path) -> None:
    os.truncate(encoder / "encoder.weights", 100)


def have_a_manifest_that_breaks_off(encoder: Path) -> None:
    os.truncate(encoder / "manifest.json", 100)


def be_written_in_place(encoder: Path) -> None:
    weights = encoder / "encoder.weights"
    weights.write_bytes(bytes(weights.stat().st_size))


FIRST = [be_absent, be_half_copied, have_a_manifest_that_breaks_off, be_written_in_place]


@pytest.mark.parametrize("first", FIRST)
async def test_a_version_that_comes_before_its_encoder_is_followed_when_that_is_there(
    made: SwapWorld, early: SwapWorld, clock: SimpleNamespace, first: Callable[[Path], None]
) -> None:
    later = (early.models / "model-b").rename(early.models.parent / "model-b")
    async with opened(made.world, **variables(early)) as state:
        assert active(state) == "model-a"
        encoder = Path(shutil.copytree(made.encoders / "words-b", early.encoders / "words-b"))
        first(encoder)
        later.rename(early.models / "model-b")
        assert await look(state) == ["model-b"]
        assert active(state) == "model-a"
        assert await look(state) == []
        shutil.copytree(made.encoders / "words-b", encoder, dirs_exist_ok=True)
        clock.now += FIRST_WAIT_S
        assert await look(state) == ["model-b"]
        assert active(state) == "model-b"


@pytest.mark.parametrize("first", FIRST)
async def test_a_start_before_the_encoder_is_there_passes_over_its_version_for_a_time(
    made: SwapWorld, early: SwapWorld, clock: SimpleNamespace, first: Callable[[Path], None]
) -> None:
    encoder = Path(shutil.copytree(made.encoders / "words-b", early.encoders / "words-b"))
    first(encoder)
    async with opened(made.world, **variables(early)) as state:
        assert active(state) == "model-a"
        assert list(state.startup.passed_over) == ["model-b"]
        shutil.copytree(made.encoders / "words-b", encoder, dirs_exist_ok=True)
        assert await look(state) == ["model-b"]
        assert active(state) == "model-b"


async def test_a_load_looks_for_its_encoder_once(
    made: SwapWorld, early: SwapWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the memory that is made free is that of the encoder which is loaded."""
    shutil.copytree(made.encoders / "words-b", early.encoders / "words-b")
    looked, find = list[str | None](), EncoderRepository.find

    def noted(self: EncoderRepository, content: str | None) -> FoundEncoder:
        looked.append(content)
        return find(self, content)

    monkeypatch.setattr(EncoderRepository, "find", noted)
    async with opened(made.world, **variables(early)) as state:
        assert active(state) == "model-b"
        assert len(looked) == 2  # whether there is one at all, then this version's
        await state.manager.activate("model-a")
        assert len(looked) == 3
