"""Reads and writes recipes as YAML, and resolves one from preset, file and options.

Later sources win: preset, file (``--recipe``), ``--set NAME=VALUE``, options of their own.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from feature_store.wording import details, reading_yaml, reason, worded
from training.recipe import Recipe, fields

COMMENT_COLUMN = 36
R = TypeVar("R", bound=BaseModel)


class RecipeError(ValueError):
    """An invalid recipe; the message is one line that names the source, the name and the value."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value and its place, for messages."""

    name: str
    value: Any
    place: str


class RecipeFiles(Generic[R]):
    """Recipes of one program: presets in its package, files, settings and checkpoints.

    ``kept_in``: file of a checkpoint that keeps its recipe, written by ``program``.
    """

    def __init__(self, defaults: R, package: str, kept_in: str, program: str) -> None:
        self._defaults, self._package = defaults, package
        self._kept_in, self._program = kept_in, program
        self._known = {n: isinstance(value, BaseModel) for n, _, value in fields(defaults)}
        self.preset = cache(self._preset)

    def _preset(self, name: str) -> R:
        """Read a recipe shipped with the package: ``recipes/NAME.yaml``."""
        text = resources.files(self._package).joinpath(f"recipes/{name}.yaml").read_text("utf-8")
        return self.changed(self._defaults, self._given_by_yaml(text, f"{name}.yaml"))

    def resolve(
        self,
        start: str = "published",
        file: Path | None = None,
        settings: Iterable[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> R:
        """Resolve preset, file, ``NAME=VALUE`` settings and options. Raises RecipeError."""
        given = [] if file is None else list(self._given_by_file(file))
        given += [_given_by_setting(setting) for setting in settings]
        for name, value in (options or {}).items():
            given.append(Given(name, value, f"--{name.replace('_', '-')} {value}"))
        return self.changed(self.preset(start), given)

    def changed(self, recipe: R, given: Iterable[Given]) -> R:
        """Return the recipe with other numbers, the last of a name. Raises RecipeError."""
        content = recipe.model_dump()
        latest: dict[str, Given] = {}
        for each in given:
            self._check_name(each.name, each.place)
            latest[each.name] = each
            *groups, last = each.name.split(".")
            group = content
            for name in groups:
                group = group[name]
            group[last] = each.value
        try:
            return type(recipe).model_validate(content)
        except ValidationError as error:
            faults = []
            for fault in details(error):
                name = ".".join(map(str, fault["loc"]))
                place = latest[name].place if name in latest else name
                faults.append(f"{place}: {reason(fault)}")
            raise RecipeError("; ".join(faults)) from error

    def _given_by_file(self, path: Path) -> Iterator[Given]:
        """Read a recipe in YAML, or that of a checkpoint: its folder or the file that keeps it."""
        if path.is_dir():
            path /= self._kept_in
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: {worded(error)}") from error
        if path.name != self._kept_in:
            return self._given_by_yaml(text, str(path))
        try:
            kept = json.loads(text)["recipe"]
        except json.JSONDecodeError as error:
            raise RecipeError(f"{path}: not JSON: damaged; copy the folder again") from error
        except (KeyError, TypeError, RecursionError) as error:
            raise RecipeError(
                f"{path}: holds no recipe: not written by `{self._program}`"
            ) from error
        return self._given_by_yaml(json.dumps(kept), str(path))

    def _given_by_yaml(self, text: str, source: str) -> Iterator[Given]:
        """Read scalars as text: pydantic gives them their types (1e-3 is text in YAML)."""
        try:
            with reading_yaml():
                root = yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise RecipeError(f"{source}: {worded(error)}") from error
        if root is None:
            return iter(())
        if not isinstance(root, yaml.MappingNode):
            raise RecipeError(f"{source}: not a mapping of names to numbers")
        return self._given_by_mapping(root, source, "", set())

    def _given_by_mapping(
        self, mapping: yaml.MappingNode, source: str, prefix: str, seen: set[str]
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
                self._check_name(name, place, group=True)
                yield from self._given_by_mapping(value, source, f"{name}.", seen)
            elif isinstance(value, yaml.ScalarNode):
                yield Given(name, value.value, f"{place}: {value.value}")
            else:
                raise RecipeError(f"{place}: a list, not a number")

    def _check_name(self, name: str, place: str, group: bool = False) -> None:
        known = self._known
        if name not in known:
            raise RecipeError(f"{place}: unknown name; the nearest is {self.nearest(name)}")
        if known[name] and not group:
            within = ", ".join(n for n in known if n.startswith(f"{name}."))
            raise RecipeError(f"{place}: {name} is a group of {within}")
        if group and not known[name]:
            raise RecipeError(f"{place}: one number, not a group")

    def nearest(self, name: str) -> str:
        """Find the number of the recipe with the most similar name."""
        known = [n for n, is_group in self._known.items() if not is_group]
        similarity = {
            n: max(
                difflib.SequenceMatcher(None, name, n).ratio(),
                difflib.SequenceMatcher(
                    None, name.rpartition(".")[2], n.rpartition(".")[2]
                ).ratio(),
            )
            for n in known
        }
        return max(known, key=lambda n: similarity[n])


def to_yaml(recipe: BaseModel, drawn: Collection[str] = ()) -> str:
    """Write every number with its meaning as a comment; the word drawn for those of a search."""
    lines = []
    for name, field, value in fields(recipe):
        indent, last = "  " * name.count("."), name.rpartition(".")[2]
        if isinstance(value, BaseModel):
            lines.append(f"{indent}{last}:")
        else:
            shown = "drawn" if name in drawn else value
            line = indent + yaml.safe_dump({last: shown}).rstrip()
            lines.append(f"{line:<{COMMENT_COLUMN}}# {field.description}")
    return "\n".join(lines) + "\n"


def _given_by_setting(setting: str) -> Given:
    name, equals, value = setting.partition("=")
    if not equals:
        raise RecipeError(f"--set {setting}: must be NAME=VALUE, such as learning_rate=1e-3")
    return Given(name.strip(), value.strip(), f"--set {setting}")


RECIPES = RecipeFiles(Recipe(), "training", "metrics.json", "training fit")
preset, resolve, changed = RECIPES.preset, RECIPES.resolve, RECIPES.changed
