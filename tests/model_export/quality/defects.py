"""Plants a defect of 1e-7 into one fold, or into one folded tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from model_export.graphs import folds as fold
from model_export.graphs.folded_network import FoldedNetwork

SIZE = 1e-7  # relative
FOLDS = ("attention_keys", "attention_values", "rows", "batch_norm", "first_layer")


def grown(value: Any) -> Any:
    """Scale everything in ``value`` by 1 + 1e-7, arrays and what holds them; 0 becomes 1e-7."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: grown(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    if isinstance(value, tuple):
        parts = [grown(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return np.where(value == 0, SIZE, value * (1 + SIZE))[()]


def of_a_fold(name: str) -> Callable[..., Any]:
    """The fold, with the defect in what it returns."""
    honest = getattr(fold, name)
    return lambda *given, **named: grown(honest(*given, **named))


def tensors(network: FoldedNetwork) -> Iterator[tuple[str, FoldedNetwork]]:
    """Each folded tensor's name, and the network with the defect in it alone."""
    for name in ("target_row", "row_bias", "keys", "values", "history_rows", "first_offset"):
        yield name, _with(network, name, grown(getattr(network, name)))
    for name in ("first_slope", "fc", "bias"):
        yield name, _with(network, name, grown(getattr(network, name)))
    for name, table in network.item_tables.items():
        tables = network.item_tables | {name: grown(table)}
        yield f"item_tables.{name}", _with(network, "item_tables", tables)
    for kind in ("context", "layers"):
        parts = getattr(network, kind)
        for number, part in enumerate(parts):
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                if not isinstance(value, np.ndarray | float):
                    continue
                changed = list(parts)
                changed[number] = _with(part, field.name, grown(value))
                yield f"{kind}.{number}.{field.name}", _with(network, kind, tuple(changed))


def _with(holder: Any, name: str, value: object) -> Any:
    return dataclasses.replace(holder, **{name: value})
