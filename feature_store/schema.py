"""The feature schema: the single source of truth for names, kinds, widths and vocabulary sizes.

A schema is written in YAML (``schemas/microlens.yaml`` is the default one), carried inside every
bundle and recorded in every store. Everything else derives its shapes from it:

- ``item_vector_width`` D: item feature widths, concatenated in schema order;
- ``context_width``: the candidate's context embeddings;
- ``network_width`` X = context_width + 2·D, the width of ``x = [c | t | pool]`` (paper, section 3);
- ``item_dtype``: one stored item, a packed little-endian record.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

MAX_HISTORY = 2048
FeatureName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Width = Annotated[int, Field(ge=1, le=4096)]
Vocabulary = Annotated[int, Field(ge=2, le=2**31 - 1)]


class SchemaError(ValueError):
    """An invalid schema, or two incompatible ones."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Categorical(_Frozen):
    """One index into an embedding table of ``vocabulary`` rows; row 0 is padding and stays zero."""

    name: FeatureName
    kind: Literal["categorical"] = "categorical"
    vocabulary: Vocabulary
    width: Width


class CategoricalList(_Frozen):
    """Up to ``slots`` indices, 0-padded; the masked mean of their embeddings."""

    name: FeatureName
    kind: Literal["categorical_list"]
    vocabulary: Vocabulary
    slots: Annotated[int, Field(ge=1, le=1024)]
    width: Width


class Dense(_Frozen):
    """A vector of ``size`` floats, projected to ``width`` by a bias-free linear layer.

    ``storage`` is its precision in the store and in training alike, so that the network is trained
    on the numbers it is served. ``max_abs`` bounds values: loads and HTTP writes reject larger
    ones.
    """

    name: FeatureName
    kind: Literal["dense"]
    size: Width
    width: Width
    storage: Literal["float32", "float16"] = "float32"
    max_abs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a stored value."""
        return np.dtype("<f2" if self.storage == "float16" else "<f4")

    @property
    def most(self) -> float:
        """The largest magnitude that may be written."""
        storable = float(np.finfo(self.dtype).max)
        if self.max_abs is None or self.max_abs >= storable:
            return storable
        return max(self.max_abs, float(self.dtype.type(self.max_abs)))  # as it is read again

    @property
    def limit(self) -> str:
        """The origin of ``most``, for messages."""
        if self.most == self.max_abs or self.most < float(np.finfo(self.dtype).max):
            return f"max_abs {self.max_abs:g}"
        return f"the range of {self.dtype}"

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit an unset ``max_abs``, which older releases reject."""
        content: dict[str, Any] = serialise(self)
        if self.max_abs is None:
            del content["max_abs"]
        return content


ItemFeature = Annotated[Categorical | CategoricalList | Dense, Field(discriminator="kind")]


class FeatureSchema(_Frozen):
    """Names, kinds and sizes of everything the network reads."""

    name: str
    history_length: Annotated[int, Field(ge=1, le=MAX_HISTORY)]
    item: Annotated[tuple[ItemFeature, ...], Field(min_length=1, strict=False)]
    identity: str | None = None
    context: Annotated[tuple[Categorical, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSchema:
        names = [f.name for f in (*self.item, *self.context)]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"feature named more than once: {', '.join(twice)}")
        categorical = [f.name for f in self.item if f.kind == "categorical"]
        if self.identity is not None and self.identity not in categorical:
            raise ValueError(
                f"identity: {self.identity!r} is not a categorical item feature "
                f"(there are: {', '.join(categorical) or 'none'})"
            )
        return self

    @property
    def item_vector_width(self) -> int:
        """D, the width of an item vector."""
        return sum(f.width for f in self.item)

    @property
    def context_width(self) -> int:
        return sum(f.width for f in self.context)

    @property
    def network_width(self) -> int:
        """X, the width of ``[c | t | pool]``."""
        return self.context_width + 2 * self.item_vector_width

    @functools.cached_property
    def item_dtype(self) -> np.dtype[np.void]:
        """One stored item: its features, then its default context, packed little-endian."""
        fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for feature in (*self.item, *self.context):
            match feature:
                case Categorical():
                    fields.append((feature.name, "<i4"))
                case CategoricalList():
                    fields.append((feature.name, "<i4", (feature.slots,)))
                case Dense():
                    fields.append((feature.name, feature.dtype.str, (feature.size,)))
        return np.dtype(fields)

    @property
    def layout(self) -> str:
        """The meaning of stored bytes, a line per feature; equal layouts are compatible."""
        lines = [f"identity: {self.identity}"]
        lines += [f"item.{f.name}: {_layout(f)}" for f in self.item]
        lines += [f"context.{f.name}: {_layout(f)}" for f in self.context]
        return "\n".join(lines)

    def layout_differences(self, other: FeatureSchema) -> list[str]:
        """List the features whose stored bytes mean something else in ``other``.

        Widths and vocabulary sizes belong to a model, not to stored bytes: a catalogue grows
        between trainings, and an index beyond a model's vocabulary is served as cold. ``max_abs``
        does not change stored bytes, either.
        """
        return list(_layout_differences(self, other))

    def within(self, other: FeatureSchema) -> FeatureSchema:
        """This schema with the smaller ``max_abs`` of both per feature."""
        bounds = {f.name: f.max_abs for f in other.item if isinstance(f, Dense)}
        return self.model_copy(update={"item": tuple(_bounded(f, bounds) for f in self.item)})

    @classmethod
    def read(cls, path: Path) -> FeatureSchema:
        """Read a schema from a YAML file. SchemaError names the file, the place and the fault."""
        try:
            return cls.from_yaml(path.read_text(encoding="utf-8"), source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"{path}: cannot be read: {error}") from error

    @classmethod
    def microlens(cls) -> FeatureSchema:
        """The default schema: the MicroLens-1M challenge at the paper's widths."""
        text = (
            resources.files("feature_store").joinpath("schemas/microlens.yaml").read_text("utf-8")
        )
        return cls.from_yaml(text, source="microlens.yaml")

    @classmethod
    def from_yaml(cls, text: str, *, source: str) -> FeatureSchema:
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SchemaError(f"{source}: not YAML: {error}") from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = [
                f"{'.'.join(str(part) for part in e['loc']) or 'schema'}: {e['msg']}"
                for e in error.errors(include_url=False)
            ]
            raise SchemaError(f"{source}: " + "; ".join(faults)) from error

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _bounded(feature: ItemFeature, bounds: Mapping[str, float | None]) -> ItemFeature:
    if not isinstance(feature, Dense):
        return feature
    given = [one for one in (feature.max_abs, bounds.get(feature.name)) if one is not None]
    return feature.model_copy(update={"max_abs": min(given, default=None)})


def _layout_differences(ours: FeatureSchema, theirs: FeatureSchema) -> Iterator[str]:
    if ours.identity != theirs.identity:
        yield f"identity: {ours.identity!r} against {theirs.identity!r}"
    for room in ("item", "context"):
        mine = {f.name: f for f in getattr(ours, room)}
        other = {f.name: f for f in getattr(theirs, room)}
        for name in sorted(mine.keys() | other.keys()):
            if name not in mine or name not in other:
                yield f"{room}.{name}: only on one side"
            elif _layout(mine[name]) != _layout(other[name]):
                yield f"{room}.{name}: {_layout(mine[name])} against {_layout(other[name])}"
        if not set(mine) ^ set(other) and list(mine) != list(other):
            yield f"{room}: order {list(mine)} against {list(other)}"


def _layout(feature: Categorical | CategoricalList | Dense) -> str:
    match feature:
        case Categorical():
            return "categorical"
        case CategoricalList():
            return f"categorical_list of {feature.slots} slots"
        case Dense():
            return f"dense of {feature.size} {feature.storage}"
