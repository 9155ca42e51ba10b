"""Compares a finished checkpoint with the run that would write it: the same is not repeated, and
another does not replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from text.encoder import checkpoint
from text.encoder.recipe import Recipe
from text.encoder.run import RunError

SHOWN = 3  # numbers of a recipe


def is_finished(folder: Path) -> bool:
    """Tell whether a folder has a checkpoint."""
    return (folder / checkpoint.CONFIG).exists()


def read(folder: Path, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``training.json`` of a checkpoint whose run had the recipe, corpus, teacher and start
    that are described. Raises RunError where it is another's, CheckpointError where it is damaged.
    """
    kept = checkpoint.load(folder).training
    if other := _others(kept, described):
        raise RunError(f"{folder}: holds a checkpoint of {other}; delete it, or give another --out")
    return dict(kept)


def _others(kept: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    try:
        recipe = Recipe.model_validate(kept.get("recipe")).model_dump()
    except ValidationError:
        return "no recipe of fit"
    found = []
    if other := list(_differences(recipe, described["recipe"])):
        more = ", …" if len(other) > SHOWN else ""
        found.append(f"another recipe ({', '.join(other[:SHOWN])}{more})")
    if kept.get("corpus", {}).get("digest") != described["corpus"]["digest"]:
        found.append("another corpus")
    if kept.get("teacher") != described["teacher"]:
        found.append("another teacher")
    if kept.get("start", {}).get("digest") != described.get("start", {}).get("digest"):
        found.append("another start")
    return " and ".join(found)


def _differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in given.items():
        if isinstance(value, dict):
            found += [f"{name}.{each}" for each in _differences(kept[name], value)]
        elif kept[name] != value:
            found.append(f"{name} {kept[name]}, not {value}")
    return found
