"""Judges a state_dict against the tensors of a variant: its sizes, and what does not fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model_export.fuxictr.names import (
    LAYERS,
    LEVELS,
    NORM_COUNT,
    PUBLISHED,
    TABLE,
    USER,
    Dimension,
    Variant,
    layer_keys,
)
from model_export.fuxictr.state_file import shown

LAYER = re.compile(r"qnn\.(?:layer|norm|activation)\.(\d+)\.")
MOST_LAYERS = 32
NORM_VARIANCE = "running_var"
MOST_SHOWN = 3  # of each kind of fault
OTHER_MODEL = "was it saved by another model, or with other features?"
REMEDIES = {  # by kind of fault; of any other: OTHER_MODEL
    "of another type": "save the network's own tensors, in a floating-point type",
    "with values refused": "import the checkpoint of another epoch",
    "with padding that is not zero": "set row 0 to zero if no row of training had index 0",
}
Shapes = Mapping[str, tuple[Dimension, ...]]


class Judgement(NamedTuple):
    """The variant that more of the tensors fit, its sizes by the tensors, and their faults."""

    variant: Variant
    layers: int
    sizes: dict[str, int]
    faults: list[tuple[str, str]]  # kind and description

    def __str__(self) -> str:
        """Count faults by kind, list the first few of each, and name the remedies."""
        counts = Counter(kind for kind, _ in self.faults)
        lines = []
        for kind, count in counts.items():
            lines += [line for of, line in self.faults if of == kind][:MOST_SHOWN]
            if count > MOST_SHOWN:
                lines.append(f"… and {count - MOST_SHOWN:,} more {kind}")
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        remedies = dict.fromkeys(REMEDIES.get(kind, OTHER_MODEL) for kind in counts)
        return (
            f"{len(self.faults):,} keys do not fit {self.variant.name}: {kinds}\n  "
            + "\n  ".join(lines)
            + f"\n{'; '.join(remedies)}"
        )


def judge(state: Mapping[str, Tensor]) -> Judgement:
    """Judge against both variants; return the nearer one's."""
    layers = _layer_count(state)
    return min((_judge(state, v, layers) for v in (PUBLISHED, LEVELS)), key=lambda j: len(j.faults))


def _judge(state: Mapping[str, Tensor], variant: Variant, layers: int) -> Judgement:
    expected = dict(variant.shapes)
    for number in range(layers):
        expected |= layer_keys(number)
    sizes = _sizes(state, expected, variant)
    return Judgement(variant, layers, sizes, list(_faults(state, expected, sizes)))


def _layer_count(state: Mapping[str, Tensor]) -> int:
    """The largest layer number in any key; a gap is reported as missing keys."""
    numbers = [int(found[1]) for key in state if (found := LAYER.match(key))]
    return min(max(numbers, default=-1) + 1, MOST_LAYERS) or LAYERS


def _sizes(state: Mapping[str, Tensor], expected: Shapes, variant: Variant) -> dict[str, int]:
    """Decide each symbol's size by majority. D and X follow from the widths."""
    votes: dict[str, Counter[int]] = {}
    for key, shape in expected.items():
        tensor = state.get(key)
        if tensor is None or tensor.dim() != len(shape):
            continue
        for symbol, size in zip(shape, tensor.shape, strict=True):
            if isinstance(symbol, str):
                votes.setdefault(symbol, Counter())[size] += 1
    sizes = {symbol: found.most_common(1)[0][0] for symbol, found in votes.items()}
    if {"E", "D"} <= sizes.keys():  # P has one tensor, D four
        sizes["P"] = max(1, sizes["D"] - variant.item * sizes["E"])
    if {"E", "P"} <= sizes.keys():
        sizes |= variant.widths(sizes["E"], sizes["P"])
    if {"RX", "X"} <= sizes.keys() and sizes["X"]:
        sizes["R"] = max(1, round(sizes["RX"] / sizes["X"]))
        sizes["RX"] = sizes["R"] * sizes["X"]
    return sizes


def _faults(
    state: Mapping[str, Tensor],
    expected: Shapes,
    sizes: Mapping[str, int],
) -> Iterator[tuple[str, str]]:
    """Yield kind and description of each fault."""
    for key, shape in expected.items():
        wanted = tuple(sizes.get(d) if isinstance(d, str) else d for d in shape)
        if key not in state:
            yield "missing", f"{key}: missing, {_shape(wanted)} expected"
            continue
        tensor = state[key]
        fits = len(tensor.shape) == len(wanted) and all(
            size in (None, found) for size, found in zip(wanted, tensor.shape, strict=True)
        )
        kind = torch.int64 if key.endswith(NORM_COUNT) else torch.float32
        if not fits:
            yield "misshapen", f"{key}: {_shape(tensor.shape)} instead of {_shape(wanted)}"
        elif 0 in tensor.shape:
            yield "misshapen", f"{key}: {_shape(tensor.shape)}, which is empty"
        elif key.startswith(TABLE) and len(tensor) == 1:
            yield "misshapen", f"{key}: {_shape(tensor.shape)}, padding alone: no value has a row"
        elif tensor.dtype != kind:
            yield "of another type", f"{key}: {tensor.dtype} instead of {kind}"
        elif tensor.layout != torch.strided or tensor.is_meta:
            yield "of another type", f"{key}: a sparse tensor, or one without values"
        elif not bool(tensor.isfinite().all()):
            yield "with values refused", f"{key}: holds NaN or infinity"
        elif key.endswith(NORM_VARIANCE) and bool((tensor < 0).any()):
            yield "with values refused", f"{key}: holds a negative variance"
        elif key.startswith(TABLE) and key != USER and bool(tensor[0].any()):
            yield "with padding that is not zero", f"{key}: row 0 is padding and must be zero"
    for key in state:
        if key not in expected:
            yield "unknown", f"{shown(key)}: unknown{_why_unknown(key, state, expected)}"


def _why_unknown(key: str, state: Mapping[str, Tensor], expected: Shapes) -> str:
    """Describe a layer too many, or a second copy of a table."""
    if (layer := LAYER.match(key)) and int(layer[1]) >= MOST_LAYERS:
        return f": at most {MOST_LAYERS} layers are served"
    for known in expected:
        if known not in state or not known.startswith(TABLE):
            continue
        if _equal(state[known], state[key]):
            return f", equal to {known}: leave it out of the file if both are one table"
        if key.endswith(known.removeprefix(TABLE)):
            return f", not equal to {known}: one table a feature is served"
    return ""


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.layout != torch.strided or other.layout != torch.strided:
        return False
    if one.is_meta or other.is_meta or one.dtype != other.dtype:
        return False
    return torch.equal(one, other)


def _shape(sizes: Iterable[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else f"{size:,}" for size in sizes) + ")"
