"""The feature schema: the single source of truth for names, kinds, widths and vocabulary sizes.

A schema is written in YAML (``schemas/microlens.yaml`` is the default one), carried inside every
bundle and recorded in every store. Everything else derives its shapes from it:

- ``item_vector_width`` D: item feature widths, concatenated in schema order;
- ``context_width``: the block c of user, request and candidate context embeddings, in that order;
- ``network_width`` X = context_width + 2·D, the width of ``x = [c | t | pool]`` (paper, section 3);
- ``item_dtype``, ``user_dtype``: one stored item, one stored user: packed little-endian records.

A feature named under ``item`` and ``context`` is stored once and has one embedding table: it is a
part of every item vector, the history's too, and of the candidate's c. An override in a request
changes c alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

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

from feature_store.wording import reading_yaml, worded

MAX_HISTORY = 2048
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
FeatureName = Annotated[str, Field(pattern=NAME_PATTERN)]
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


class Numeric(_Frozen):
    """A number of the request, standardised by its mean and deviation in training, which the
    network keeps, and projected to ``width``; a missing one is the mean."""

    name: FeatureName
    kind: Literal["numeric"]
    width: Width


Stored = Categorical | CategoricalList | Dense
StoredFeature = Annotated[Stored, Field(discriminator="kind")]
RequestFeature = Annotated[Categorical | Numeric, Field(discriminator="kind")]


class FeatureSchema(_Frozen):
    """Names, kinds and sizes of everything the network reads."""

    name: str
    history_length: Annotated[int, Field(ge=1, le=MAX_HISTORY)]
    item: Annotated[tuple[StoredFeature, ...], Field(min_length=1, strict=False)]
    identity: str | None = None
    context: Annotated[tuple[Categorical, ...], Field(strict=False)] = ()
    user: Annotated[tuple[StoredFeature, ...], Field(strict=False)] = ()
    user_identity: str | None = None
    request: Annotated[tuple[RequestFeature, ...], Field(strict=False)] = ()
    descriptions: bool = False  # whether stores keep items' texts

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSchema:
        names = [f.name for f in (*self.stored_item, *self.user, *self.request)]
        context = [f.name for f in self.context]
        twice = sorted(
            {n for n in names if names.count(n) > 1} | {n for n in context if context.count(n) > 1}
        )
        if twice:
            raise ValueError(f"feature named more than once: {', '.join(twice)}")
        _check_identity("identity", self.identity, "item", self.item)
        _check_identity("user_identity", self.user_identity, "user", self.user)
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit what there is none of: older releases reject it."""
        content: dict[str, Any] = serialise(self)
        for name in ("user", "user_identity", "request", "descriptions"):
            if not content[name]:
                del content[name]
        return content

    @property
    def shared(self) -> frozenset[str]:
        """Names of the features under both ``item`` and ``context``, where they are the same."""
        return frozenset(f.name for f in self.context if f in self.item)

    @functools.cached_property
    def stored_item(self) -> tuple[Stored, ...]:
        """The features of an item's record: its own, then its default context."""
        shared = self.shared
        return (*self.item, *(f for f in self.context if f.name not in shared))

    @property
    def item_vector_width(self) -> int:
        """D, the width of an item vector."""
        return sum(f.width for f in self.item)

    @property
    def context_widths(self) -> tuple[int, ...]:
        """Widths of the parts of c, in its order: user, request, context."""
        return tuple(f.width for f in (*self.user, *self.request, *self.context))

    @property
    def context_width(self) -> int:
        return sum(self.context_widths)

    @property
    def network_width(self) -> int:
        """X, the width of ``[c | t | pool]``."""
        return self.context_width + 2 * self.item_vector_width

    @functools.cached_property
    def item_dtype(self) -> np.dtype[np.void]:
        """One stored item: its features, then its default context, packed little-endian."""
        return _record(self.stored_item)

    @functools.cached_property
    def user_dtype(self) -> np.dtype[np.void]:
        """One stored user, packed little-endian; without fields where there are no features."""
        return _record(self.user)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy without what is cached: with ``update`` it may be other."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("stored_item", "item_dtype", "user_dtype"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def layout(self) -> str:
        """The meaning of an item's bytes, a line per feature; equal layouts are compatible."""
        lines = [f"identity: {self.identity}"]
        lines += [f"item.{f.name}: {_layout(f)}" for f in self.item]
        context = self.stored_item[len(self.item) :]
        lines += [f"context.{f.name}: {_layout(f)}" for f in context]
        return "\n".join(lines)

    @property
    def user_layout(self) -> str:
        """The meaning of a user's bytes, a line per feature."""
        return "\n".join(f"user.{f.name}: {_layout(f)}" for f in self.user)

    def unserved_by(self, store: FeatureSchema) -> list[str]:
        """List the features that ``store`` lacks, or keeps in another form.

        A store serves any model all of whose features it holds, in any order and role: a
        level may be context in one model and part of the item in the next. Widths and vocabulary
        sizes belong to a model, not to stored bytes: a catalogue grows between trainings, and an
        index beyond a model's vocabulary is served as cold. ``max_abs`` changes no stored bytes,
        either.
        """
        return [
            *_unserved("item", self.stored_item, store.stored_item),
            *_unserved("user", self.user, store.user),
        ]

    def within(self, other: FeatureSchema) -> FeatureSchema:
        """This schema with the smaller ``max_abs`` of both per feature."""
        stored = (*other.item, *other.user)
        bounds = {f.name: f.max_abs for f in stored if isinstance(f, Dense)}
        item, user = (tuple(_bounded(f, bounds) for f in room) for room in (self.item, self.user))
        return self.model_copy(update={"item": item, "user": user})

    @classmethod
    def read(cls, path: Path) -> FeatureSchema:
        """Read a schema from a YAML file. SchemaError names the file, the place and the fault."""
        try:
            return cls.from_yaml(path.read_text(encoding="utf-8"), source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"{path}: cannot be read: {worded(error)}") from error

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
            with reading_yaml():
                content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SchemaError(f"{source}: {worded(error)}") from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise SchemaError(f"{source}: {worded(error)}") from error

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _check_identity(
    what: str, identity: str | None, room: str, features: tuple[Stored, ...]
) -> None:
    categorical = [f.name for f in features if f.kind == "categorical"]
    if identity is not None and identity not in categorical:
        raise ValueError(
            f"{what}: {identity!r} is not a categorical {room} feature "
            f"(there are: {', '.join(categorical) or 'none'})"
        )


def _record(features: tuple[Stored, ...]) -> np.dtype[np.void]:
    fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for feature in features:
        match feature:
            case Categorical():
                fields.append((feature.name, "<i4"))
            case CategoricalList():
                fields.append((feature.name, "<i4", (feature.slots,)))
            case Dense():
                fields.append((feature.name, feature.dtype.str, (feature.size,)))
    return np.dtype(fields)


def _unserved(room: str, wanted: tuple[Stored, ...], kept: tuple[Stored, ...]) -> Iterator[str]:
    there = {f.name: _layout(f) for f in kept}
    for feature in wanted:
        if feature.name not in there:
            yield f"{room}.{feature.name}: not in the store"
        elif there[feature.name] != _layout(feature):
            pair = f"{_layout(feature)} against the store's {there[feature.name]}"
            yield f"{room}.{feature.name}: {pair}"


def _bounded(feature: Stored, bounds: Mapping[str, float | None]) -> Stored:
    if not isinstance(feature, Dense):
        return feature
    given = [one for one in (feature.max_abs, bounds.get(feature.name)) if one is not None]
    return feature.model_copy(update={"max_abs": min(given, default=None)})


def _layout(feature: Categorical | CategoricalList | Dense) -> str:
    match feature:
        case Categorical():
            return "categorical"
        case CategoricalList():
            return f"categorical_list of {feature.slots} slots"
        case Dense():
            return f"dense of {feature.size} {feature.storage}"
