"""Agrees with what an output holds of earlier runs: the recipe is written before the first part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from batch.errors import OutputConflict
from batch.job import Recipe
from batch.output.folders import AnyFolder
from batch.output.manifest import RECIPE


def agreed(recipe: Recipe, folder: AnyFolder, other_processor: bool) -> tuple[Recipe, list[str]]:
    """Compare with the recipe of the output's earlier runs. OutputConflict names what differs."""
    data = folder.read(RECIPE)
    if data is None:
        others = sorted(name for name in folder.names() if not name.startswith(("_", ".")))
        if others:
            raise OutputConflict(
                f"{folder.path}: holds {others[0]}, which is no part of this run; choose another "
                "folder, or remove it"
            )
        return recipe, []
    before = _read(data, folder)
    mixed: list[str] = before.pop("other_processors")
    here, first = recipe.processor, before["processor"]
    if here != first:
        if not other_processor:
            raise OutputConflict(
                f"{folder.path}: was begun on {first}, and this is {here}: scores may differ in "
                "their last bits; go on there, or give --allow-other-processor"
            )
        recipe = replace(recipe, processor=first)
        mixed = sorted({*mixed, here})
    surveyed = replace(recipe, edges=tuple(before["edges"]))
    differing = next(surveyed.differences(before), None)
    if differing:
        raise OutputConflict(
            f"{folder.path}: holds the output of another run: {differing}; choose another folder, "
            "or remove it"
        )
    return recipe, mixed


def record(recipe: Recipe, mixed: list[str], folder: AnyFolder) -> None:
    """Write the recipe before the first part."""
    fields = orjson.loads(recipe.json()) | {"other_processors": sorted(mixed)}
    data = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    if folder.read(RECIPE) != data:
        folder.put(RECIPE, data)


def _read(data: bytes, folder: AnyFolder) -> dict[str, Any]:
    """Read an earlier run's recipe. OutputConflict if it is none."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    kinds = {"processor": str, "edges": list, "other_processors": list}
    if not isinstance(found, dict) or any(
        not isinstance(found.get(name), kind) for name, kind in kinds.items()
    ):
        raise OutputConflict(
            f"{folder.path / RECIPE}: damaged, so it is not known what the folder holds; choose "
            "another folder, or remove it"
        )
    return found
