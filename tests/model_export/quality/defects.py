"""Plants a defect of 1e-7 into one fold or one folded tensor, or one of 1e-3 into a graph's block.

Folds and blocks are listed from their modules, so that a new one is planted without being named.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from model_export.graphs import blocks, context_tables, towers, user_tower
from model_export.graphs import folds as fold
from model_export.graphs.blocks import Block
from model_export.graphs.folded_network import FoldedNetwork

SIZE = 1e-7  # relative
BLOCK_SIZE = 1e-3  # relative: a smaller one may pass for float32 rounding


def functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions defined in ``module``, by name."""
    found = inspect.getmembers(module, inspect.isfunction)
    return {name: value for name, value in found if value.__module__ == module.__name__}


FOLDS = [(fold, name) for name in functions(fold)] + [(context_tables, "_join")]
BLOCKS = [
    (module, name)
    for module in (blocks, towers, user_tower)
    for name, function in functions(module).items()
    if function.__annotations__["return"] == "Block" and not name.startswith("_")
]


def grown(value: Any) -> Any:
    """Scale everything in ``value`` by 1 + 1e-7, arrays and what holds them; 0 becomes 1e-7."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: grown(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    if isinstance(value, dict):
        return {name: grown(part) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [grown(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, np.ndarray | float):  # names, and counts of levels
        return value
    return np.where(value == 0, SIZE, value * (1 + SIZE))[()]


def of_a_fold(module: ModuleType, name: str) -> Callable[..., Any]:
    """The fold, with the defect in what it returns."""
    honest = getattr(module, name)
    return lambda *given, **named: grown(honest(*given, **named))


def of_a_block(module: ModuleType, name: str, size: float = BLOCK_SIZE) -> Callable[..., Block]:
    """The function that writes a block, with the defect in the block's first output."""
    honest = getattr(module, name)

    def planted(*given: Any, **named: Any) -> Block:
        block = honest(*given, **named)
        out = block.outputs[0]
        for node in block._nodes:
            for names in (node.input, node.output):
                names[:] = ["honest" if name == out else name for name in names]
        block.node("Mul", ["honest", block.node("Constant", [], "g", value_float=1 + size)], out)
        return block

    return planted


def tensors(network: FoldedNetwork) -> Iterator[tuple[str, FoldedNetwork]]:
    """Each folded tensor's name, and the network with the defect in it alone."""
    for name in ("target_row", "row_bias", "keys", "values", "history_rows", "first_offset"):
        yield name, _with(network, name, grown(getattr(network, name)))
    for name in ("first_slope", "fc", "bias"):
        yield name, _with(network, name, grown(getattr(network, name)))
    for name, table in network.item_tables.items():
        tables = network.item_tables | {name: grown(table)}
        yield f"item_tables.{name}", _with(network, "item_tables", tables)
    if network.output_bias is not None:
        yield "output_bias", _with(network, "output_bias", grown(network.output_bias))
    if (user := network.user) is not None:
        for name, table in user.tables.items():
            tables = user.tables | {name: grown(table)}
            yield f"user.tables.{name}", _with(network, "user", _with(user, "tables", tables))
        for field in ("means", "row") if user.means else ("row",):
            changed = _with(user, field, grown(getattr(user, field)))
            yield f"user.{field}", _with(network, "user", changed)
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
