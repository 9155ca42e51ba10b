"""The small world with an int8 ranker in its bundle, or with a gate of bf16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model_export.build import Bf16, Int8, build
from model_export.quality.random_rows import random_held_out
from tests.service.world import World


def with_int8(world: World, models: Path) -> World:
    """The same network; random weights do not pass the gate, so it is forced."""
    int8 = Int8(random_held_out(world.network), force=True)
    return replace(world, models=models, bundle=build(world.network, models, int8=int8))


def with_bf16(world: World, models: Path) -> World:
    """The same network, with a gate of bf16, forced; needs OpenVINO and such a processor."""
    bf16 = Bf16(random_held_out(world.network), force=True)
    return replace(world, models=models, bundle=build(world.network, models, bf16=bf16))
