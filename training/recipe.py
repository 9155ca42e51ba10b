"""Hyperparameters of training. Every number that changes the trained weights is here by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from training.sizes import QINSizes

_NUMBERS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Adam(BaseModel):
    """Adam's constants; its rate is ``learning_rate``."""

    model_config = _NUMBERS

    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the mean square")
    epsilon: float = Field(default=1e-8, gt=0, le=1, description="added to the root of the square")


class InitialWeights(BaseModel):
    """Weights before training; biases are zero."""

    model_config = _NUMBERS

    embedding_deviation: float = Field(
        default=1e-4, ge=0, le=10, description="standard deviation of embedding tables"
    )
    linear_gain: float = Field(
        default=1.0, gt=0, le=100, description="Xavier normal: times √(2 / (inputs + outputs))"
    )
    prelu_slope: float = Field(default=0.25, ge=-10, le=10, description="of PReLU below zero")


class Recipe(BaseModel):
    """The defaults are the published recipe (arXiv 2504.17699, its public configuration)."""

    model_config = _NUMBERS

    sizes: QINSizes = QINSizes()
    learning_rate: float = Field(default=2e-3, gt=0, le=10, description="first rate of Adam")
    batch_size: int = Field(default=8192, ge=1, le=2**24, description="rows per step")
    smallest_batch: int = Field(
        default=64, ge=1, le=2**24, description="a last batch of fewer rows joins the one before"
    )
    embedding_regulariser: float = Field(
        default=2e-4, ge=0, le=1e3, description="λ of (λ/2)·‖W‖² over all embedding tables and P"
    )
    gradient_clip: float = Field(
        default=10.0, gt=0, le=1e9, description="largest norm of all gradients"
    )
    learning_rate_factor: float = Field(
        default=0.5, gt=0, le=1, description="applied after each epoch without improvement"
    )
    learning_rate_floor: float = Field(
        default=1e-6, gt=0, le=10, description="rate below which it is not reduced"
    )
    norm_momentum: float = Field(
        default=0.1, gt=0, le=1, description="share of a batch in batch norm's statistics"
    )
    patience: int = Field(
        default=8, ge=1, le=10**6, description="epochs without improvement before the end"
    )
    epochs: int = Field(default=100, ge=1, le=10**6, description="most epochs")
    seed: int = Field(default=20242025, ge=0, lt=2**63, description="of weights, order, dropout")
    user_min_count: int = Field(
        default=1, ge=1, le=2**31, description="training rows below which a user is unknown"
    )
    touched_rows_above: int = Field(
        default=100_000,
        ge=0,
        le=2**31,
        description="of more rows, a user table is updated by a batch's rows alone",
    )
    adam: Adam = Adam()
    initial: InitialWeights = InitialWeights()


def fields(
    model: BaseModel, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, object | BaseModel]]:
    """Yield (dotted name, field, value) of every group and number, groups before their numbers."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        yield prefix + name, field, value
        if isinstance(value, BaseModel):
            yield from fields(value, f"{prefix}{name}.")


def get(recipe: Recipe, name: str) -> object:
    """Return the number of a dotted name."""
    return next(value for known, _, value in fields(recipe) if known == name)


def without(recipe: str | None, names: Collection[str]) -> dict[str, Any]:
    """Return a recipe (JSON) without the numbers of dotted names."""
    numbers: dict[str, Any] = json.loads(recipe or "{}")
    for name in names:
        *groups, last = name.split(".")
        group = numbers
        for each in groups:
            group = group.get(each, {})
        group.pop(last, None)
    return numbers


def differences(kept: str | None, given: str, drawn: Collection[str] = ()) -> str:
    """Name the numbers in which two recipes (JSON) differ: `` (epochs 2, not 1)``, or nothing.

    Those of the names ``drawn`` are left out.
    """
    try:
        pairs = zip(
            fields(Recipe.model_validate_json(kept or "")),
            fields(Recipe.model_validate_json(given)),
            strict=True,
        )
    except ValidationError:
        return ""
    named = [
        f"{name} {old}, not {new}"
        for (name, _, old), (_, _, new) in pairs
        if old != new and name not in drawn and not isinstance(old, BaseModel)
    ]
    return f" ({'; '.join(named)})" if named else ""
