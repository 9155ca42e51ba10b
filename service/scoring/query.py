"""A scoring request as arrays, independent of the wire format."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Self

import numpy as np

from feature_store.contract import Ids
from feature_store.schema import NAME_PATTERN, Categorical, FeatureSchema, Numeric
from model_export.bundle.user_tower import Value
from model_export.bundle.vectors import Indices
from service.errors import InvalidField
from service.scoring.id_texts import IdTexts
from service.scoring.inline_items import InlineItems

Tensor = Indices | float  # (1,) of a categorical feature, or a number
Overrides = list[tuple[int, Indices]]  # (context column, (C,) values)
FEATURE = re.compile(NAME_PATTERN.replace("$", r"\Z"))
LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreQuery:
    """One request, valid in itself; what depends on the model is still to be checked."""

    user_id: int
    candidates: Ids  # (C,)
    history: Ids | None = None  # (H,) newest first; None: the stored one
    context: dict[str, Indices] = field(default_factory=dict)  # feature -> (C,)
    top_k: int | None = None  # only the best are asked for
    explain: int | None = None  # and so many history items that a score came from
    texts: IdTexts | None = None  # if the ids of the answer are strings
    user_text: str | None = None  # the user's text id, if the store has such
    features: Mapping[str, Any] = field(default_factory=dict)  # of the request, by name
    # One value each, of a protocol that does not tell apart context and request: by name.
    tensors: Mapping[str, Tensor] | None = None
    inline: InlineItems | None = None  # candidates that are in no store
    ignored: tuple[str, ...] = ()  # of these: the version that answers does not have them

    @property
    def explained(self) -> int:
        """Number of candidates to explain, at most."""
        if self.explain is None:
            return 0
        count = len(self.candidates)
        return count if self.top_k is None else min(self.top_k, count)

    def checked_history(self, schema: FeatureSchema) -> Ids | None:
        """The inline history. InvalidField when it is longer than the model reads."""
        longest = schema.history_length
        if self.history is not None and len(self.history) > longest:
            raise InvalidField.of(
                "history", detail=f"at most {longest} items, which is all the model reads"
            )
        return self.history

    def overrides(self, schema: FeatureSchema) -> Overrides:
        """The given context columns, checked against the model's features."""
        if not self.context:
            return []
        columns = {feature.name: column for column, feature in enumerate(schema.context)}
        found: Overrides = []
        for name, values in self.context.items():
            if name not in columns:
                known = ", ".join(columns) or "none"
                detail = f"no such context feature; there are: {known}"
                if any(name == feature.name for feature in schema.request):
                    detail = "a request feature: one value, in `features` of /v1/score"
                raise InvalidField.of("context", name, detail=detail)
            if len(values) != len(self.candidates):
                raise InvalidField.of(
                    "context",
                    name,
                    detail=f"{len(values)} values for {len(self.candidates)} candidates",
                )
            vocabulary = schema.context[columns[name]].vocabulary
            beyond = np.flatnonzero(values >= vocabulary)
            if len(beyond):
                most = f"Input should be less than or equal to {vocabulary - 1}"
                raise InvalidField.of("context", name, int(beyond[0]), detail=most)
            found.append((columns[name], values))
        return found

    def request_features(self, schema: FeatureSchema) -> dict[str, Value]:
        """The request features without those that are null. InvalidField names the first fault."""
        wanted, found = {f.name: f for f in schema.request}, dict[str, Value]()
        for name, value in self.features.items():
            if name in self.ignored:
                continue
            if name not in wanted:
                known = ", ".join(wanted) or "none"
                detail = f"no such request feature; there are: {known}"
                raise InvalidField.of("features", name, detail=detail)
            if fault := _fault(wanted[name], value):
                raise InvalidField.of("features", name, detail=fault)
            if value is not None:
                found[name] = float(value) if isinstance(wanted[name], Numeric) else value
        return found

    def ignoring(self, known: Collection[str], elsewhere: Collection[str], any_name: bool) -> Self:
        """Leave out features that are not ``known``: those ``elsewhere``, or all of a valid name.
        InvalidField if the value of one is none of any feature's."""
        left_out = [
            name
            for name in self.features
            if name not in known and (name in elsewhere or (any_name and FEATURE.match(name)))
        ]
        for name in left_out:
            if type(self.features[name]) not in (int, float, NoneType):
                detail = "Input should be a number or null"
                raise InvalidField.of("features", name, detail=detail)
        return replace(self, ignored=tuple(left_out)) if left_out else self

    def features_known_to(self, schema: FeatureSchema) -> dict[str, Any]:
        """The request features that this model takes."""
        wanted = {f.name: f for f in schema.request}
        given = self.features.items()
        return {n: v for n, v in given if n in wanted and _fault(wanted[n], v) is None}


def _fault(feature: Categorical | Numeric, value: Any) -> str | None:
    """Describe what is wrong with a request feature's value; a null is missing."""
    if value is None:
        return None
    if isinstance(feature, Numeric):
        if type(value) not in (int, float):
            return "Input should be a valid number"
        if not abs(value) <= LARGEST_NUMBER:  # NaN is not
            return f"Input should be a finite number, at most {LARGEST_NUMBER:g} in magnitude"
        return None
    if type(value) is not int:
        return "Input should be a valid integer"
    if not 0 <= value < feature.vocabulary:
        return f"Input should be 0 or more, at most {feature.vocabulary - 1}"
    return None
