"""Requests as arrays: many users' candidates, with what each request says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from model_export.bundle.user_tower import Value
from model_export.bundle.vectors import Indices, Positions
from service.scoring.query import ScoreQuery

FeatureValues = NDArray[np.int32] | NDArray[np.float64]  # 0 and NaN: missing


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """G requests with E candidates in all: those of request g are ``starts[g]:starts[g + 1]``."""

    users: Ids  # (G,)
    starts: Positions  # (G + 1,)
    items: Ids  # (E,)
    context: Mapping[str, Indices] = field(default_factory=dict)  # feature -> (E,)
    features: Mapping[str, FeatureValues] = field(default_factory=dict)  # request feature -> (G,)
    times: Ids | None = None  # (G,)
    histories: Sequence[Ids | None] | None = None  # (G,) newest first, in place of the stored
    faults: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # g -> column, reason

    def __len__(self) -> int:
        return len(self.users)

    def query(self, g: int, history: Ids | None = None) -> ScoreQuery:
        """Return request ``g`` as the service's. ``history``: newest first, for the stored one."""
        span = slice(int(self.starts[g]), int(self.starts[g + 1]))
        return ScoreQuery(
            int(self.users[g]),
            self.items[span],
            history=history,
            context={name: values[span] for name, values in self.context.items()},
            features={name: _value(values[g]) for name, values in self.features.items()},
        )


def joined(parts: Sequence[Requests]) -> Requests:
    """Concatenate ``parts``, of which there is one at least."""
    first, places = parts[0], np.cumsum([0, *(len(part) for part in parts)])
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    times = [part.times for part in parts if part.times is not None]
    histories = [each for part in parts for each in part.histories or ()]
    return Requests(
        np.concatenate([part.users for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.items for part in parts]),
        {name: np.concatenate([part.context[name] for part in parts]) for name in first.context},
        {name: np.concatenate([part.features[name] for part in parts]) for name in first.features},
        np.concatenate(times) if times else None,
        histories or None,
        {
            int(place) + g: fault
            for part, place in zip(parts, places, strict=False)
            for g, fault in part.faults.items()
        },
    )


def _value(value: np.generic) -> Value:
    number: int | float = value.item()
    return None if isinstance(number, float) and isnan(number) else number
