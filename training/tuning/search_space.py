"""The search space of ``training tune``, in YAML: which numbers of the recipe vary, and where.

learning_rate: {kind: float, low: 1e-4, high: 1e-2, log: true}
sizes.rows: {kind: int, low: 2, high: 4}
batch_size: {kind: choice, values: [1024, 2048, 4096]}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from feature_store.wording import details, reading_yaml, reason, worded
from training.recipe import Recipe, get
from training.recipe_files import Given, changed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

READ_WITH_ROWS = {"user_min_count"}


class SearchError(ValueError):
    """An invalid search space or study; the message names the file and the remedy."""


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both included; ``log``: uniform in the logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low {self.low:g} is not above 0")
        if self.kind == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("low and high of kind int are whole numbers")
        return self

    @property
    def extremes(self) -> list[Any]:
        return [self._typed(self.low), self._typed(self.high)]

    def _typed(self, value: float) -> float | int:
        return int(value) if self.kind == "int" else value

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


class Choice(BaseModel):
    """Each of ``values``, in no order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["choice"]
    values: list[bool | int | float | str] = Field(min_length=2)

    @property
    def extremes(self) -> list[Any]:
        return self.values

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


Dimension = Annotated[Range | Choice, Field(discriminator="kind")]
_DIMENSIONS: TypeAdapter[dict[str, Range | Choice]] = TypeAdapter(dict[str, Dimension])


class SearchSpace:
    """Dimensions by the dotted name of their number."""

    def __init__(self, dimensions: Mapping[str, Range | Choice]) -> None:
        self.dimensions = dict(dimensions)

    @classmethod
    def read(cls, path: Path, base: Recipe) -> SearchSpace:
        """Read a file and hold it against the recipe. Raises SearchError, RecipeError."""
        try:
            text = path.read_text("utf-8")
            with reading_yaml():
                root = yaml.compose(text, Loader=yaml.SafeLoader)
                content = yaml.safe_load(text)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise SearchError(f"{path}: {worded(error)}") from error
        if not isinstance(root, yaml.MappingNode) or not content:
            raise SearchError(f"{path}: not a mapping of the recipe's names to dimensions")
        names = [key.value for key, _ in root.value]
        for name in names:
            if names.count(name) > 1:
                raise SearchError(f"{path}: {name}: given twice")
        try:
            space = cls(_DIMENSIONS.validate_python(content))
        except ValidationError as error:
            raise SearchError(f"{path}: {_fault(error)}") from error
        return cls({n: _fitting(n, d, base, path) for n, d in space.dimensions.items()})

    def distributions(self) -> dict[str, BaseDistribution]:
        return {name: d.distribution() for name, d in self.dimensions.items()}

    def model_dump_json(self) -> str:
        return _DIMENSIONS.dump_json(self.dimensions).decode()


def recipe_of(base: Recipe, numbers: Mapping[str, Any]) -> Recipe:
    """Return the base recipe with a trial's numbers."""
    return changed(
        base, [Given(name, value, f"{name}: {value}") for name, value in numbers.items()]
    )


def _fitting(name: str, dimension: Range | Choice, base: Recipe, path: Path) -> Range | Choice:
    """Check that the recipe may have all of a dimension's values; give choices their type."""
    if name in READ_WITH_ROWS:
        raise SearchError(f"{path}: {name}: cannot vary: it applies as the rows are read")
    typed: list[Any] = []
    for value in dimension.extremes:
        place = f"{path}: {name}: {value}"
        typed.append(get(changed(base, [Given(name, value, place)]), name))
    if isinstance(dimension, Choice):
        return Choice(kind="choice", values=typed)
    if isinstance(typed[0], bool):
        raise SearchError(f"{path}: {name}: true or false: use kind: choice")
    if isinstance(typed[0], int) and dimension.kind == "float":
        raise SearchError(f"{path}: {name}: a whole number: use kind: int")
    return dimension


def _fault(error: ValidationError) -> str:
    """Describe the first fault in a line."""
    fault = details(error)[0]
    name, *rest = (str(part) for part in fault["loc"])
    field = rest[-1] if len(rest) > 1 else ""
    match fault["type"]:
        case "union_tag_not_found" | "union_tag_invalid":
            said = "kind must be float, int or choice"
        case "too_short":
            said = "values holds fewer than two"
        case _:
            said = ": ".join(filter(None, (field, reason(fault))))
    return f"{name}: {said}"
