"""Reads and writes recipes as YAML, and resolves one from preset, file and options.

Later sources win: preset, file (``--recipe``), ``--set NAME=VALUE``, options of their own.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from feature_store.wording import details, reading_yaml, reason, worded
from training.recipe import Recipe, fields

CHECKPOINT_FILE = "metrics.json"  # of a checkpoint, where its recipe is kept
COMMENT_COLUMN = 36


class RecipeError(ValueError):
    """An invalid recipe; the message is one line that names the source, the name and the value."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value and its place, for messages."""

    name: str
    value: Any
    place: str


@cache
def preset(name: str) -> Recipe:
    """Read a recipe shipped with the package: ``recipes/NAME.yaml``."""
    text = resources.files("training").joinpath(f"recipes/{name}.yaml").read_text("utf-8")
    return changed(Recipe(), _given_by_yaml(text, f"{name}.yaml"))


def resolve(
    start: str = "published",
    file: Path | None = None,
    settings: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Recipe:
    """Resolve preset, file, ``NAME=VALUE`` settings and options. Raises RecipeError."""
    given = [] if file is None else list(_given_by_file(file))
    given += [_given_by_setting(setting) for setting in settings]
    for name, value in (options or {}).items():
        given.append(Given(name, value, f"--{name.replace('_', '-')} {value}"))
    return changed(preset(start), given)


def changed(recipe: Recipe, given: Iterable[Given]) -> Recipe:
    """Return the recipe with other numbers, the last of a name. Raises RecipeError."""
    content = recipe.model_dump()
    latest: dict[str, Given] = {}
    for each in given:
        _check_name(each.name, each.place)
        latest[each.name] = each
        *groups, last = each.name.split(".")
        group = content
        for name in groups:
            group = group[name]
        group[last] = each.value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        faults = []
        for fault in details(error):
            name = ".".join(map(str, fault["loc"]))
            place = latest[name].place if name in latest else name
            faults.append(f"{place}: {reason(fault)}")
        raise RecipeError("; ".join(faults)) from error


def to_yaml(recipe: Recipe) -> str:
    """Write every number with its meaning as a comment."""
    lines = []
    for name, field, value in fields(recipe):
        indent, last = "  " * name.count("."), name.rpartition(".")[2]
        if isinstance(value, BaseModel):
            lines.append(f"{indent}{last}:")
        else:
            line = indent + yaml.safe_dump({last: value}).rstrip()
            lines.append(f"{line:<{COMMENT_COLUMN}}# {field.description}")
    return "\n".join(lines) + "\n"


def _given_by_setting(setting: str) -> Given:
    name, equals, value = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting}: must be NAME=VALUE, such as learning_rate=1e-3")
    return Given(name.strip(), value.strip(), f"--set {setting}")


def _given_by_file(path: Path) -> Iterator[Given]:
    """Read a recipe in YAML, or that of a checkpoint: its folder or its ``metrics.json``."""
    if path.is_dir():
        path /= CHECKPOINT_FILE
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {worded(error)}") from error
    if path.name != CHECKPOINT_FILE:
        return _given_by_yaml(text, str(path))
    try:
        kept = json.loads(text)["recipe"]
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(f"{path}: holds no recipe: not written by `training fit`") from error
    return _given_by_yaml(json.dumps(kept), str(path))


def _given_by_yaml(text: str, source: str) -> Iterator[Given]:
    """Read scalars as text: pydantic gives them the type of their name (YAML's 1e-3 is text)."""
    try:
        with reading_yaml():
            root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: {worded(error)}") from error
    if root is None:
        return iter(())
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{source}: not a mapping of names to numbers")
    return _given_by_mapping(root, source, "", set())


def _given_by_mapping(
    mapping: yaml.MappingNode, source: str, prefix: str, seen: set[str]
) -> Iterator[Given]:
    """``seen``: names of the whole file; ``sizes.rows`` may be within ``sizes``, too."""
    for key, value in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            raise RecipeError(f"{source}: line {line}: a name that is not text")
        name = f"{prefix}{key.value}"
        place = f"{source}: line {key.start_mark.line + 1}: {name}"
        if name in seen:
            raise RecipeError(f"{place}: given twice")
        seen.add(name)
        if isinstance(value, yaml.MappingNode):
            _check_name(name, place, group=True)
            yield from _given_by_mapping(value, source, f"{name}.", seen)
        elif isinstance(value, yaml.ScalarNode):
            yield Given(name, value.value, f"{place}: {value.value}")
        else:
            raise RecipeError(f"{place}: a list, not a number")


def _check_name(name: str, place: str, group: bool = False) -> None:
    known = {n: isinstance(value, BaseModel) for n, _, value in fields(Recipe())}
    if name not in known:
        raise RecipeError(f"{place}: unknown name; the nearest is {nearest(name)}")
    if known[name] and not group:
        within = ", ".join(n for n in known if n.startswith(f"{name}."))
        raise RecipeError(f"{place}: {name} is a group of {within}")
    if group and not known[name]:
        raise RecipeError(f"{place}: one number, not a group")


def nearest(name: str) -> str:
    """Find the number of the recipe with the most similar name."""
    known = [n for n, _, value in fields(Recipe()) if not isinstance(value, BaseModel)]
    similarity = {
        n: max(
            difflib.SequenceMatcher(None, name, n).ratio(),
            difflib.SequenceMatcher(None, name.rpartition(".")[2], n.rpartition(".")[2]).ratio(),
        )
        for n in known
    }
    return max(known, key=lambda n: similarity[n])
