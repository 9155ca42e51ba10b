"""Imports the authors' checkpoints (FuxiCTR's ``.model``, a PyTorch state_dict).

Every key is checked against a table of symbolic shapes. Sizes are decided by a majority of the
tensors, so that a single odd one is reported. Missing, surplus and misshapen keys are reported
together: counted, and the first few of each kind named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from feature_store.schema import FeatureSchema
from model_export.bundle.errors import BundleError
from model_export.fuxictr.names import (
    LAYERS,
    LEVELS,
    OURS,
    PUBLISHED,
    TABLE,
    USER,
    Dimension,
    Variant,
    layer_keys,
)
from model_export.fuxictr.state_file import shown
from training.qin import QIN, QINSizes

LAYER = re.compile(r"qnn\.(?:layer|norm|activation)\.(\d+)\.")
MOST_LAYERS = 32
NORM_COUNT, NORM_VARIANCE = "num_batches_tracked", "running_var"
MOST_SHOWN = 3  # of each kind of fault


def import_network(
    state: Mapping[str, Tensor],
    slots: int,
    history_length: int,
    source: str,
    user: str = "user_id",
) -> QIN:
    """Build the network, in eval mode. Raises BundleError listing all faults.

    ``user``: the name of the level variant's user feature.
    """
    layers = _layer_count(state)
    # The variant is the one that more of the tensors fit.
    judged = [_judge(state, variant, layers) for variant in (PUBLISHED, LEVELS)]
    variant, sizes, faults = min(judged, key=lambda one: len(one[2]))
    if faults:
        raise BundleError(
            f"{source}: {len(faults):,} keys do not fit {variant.name}: {_listed(faults)}\n"
            "was it saved by another model, or with other features?"
        )
    try:
        schema = _schema(variant, sizes, slots, history_length, user)
        network = QIN(
            schema,
            QINSizes(
                attention_width=sizes["A"],
                layers=layers,
                rows=sizes["R"],
                output_bias=variant.has_levels,
            ),
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise BundleError(f"{source}: sizes beyond those served: {place}: {fault['msg']}") from None
    tensors = {_our_name(key, user): tensor for key, tensor in state.items()}
    for name in schema.shared:  # one table under two names
        tensors[f"item_vector.embedding.{name}.weight"] = tensors[f"context.{name}.weight"]
    network.load_state_dict(tensors)
    return network.eval()


def _judge(
    state: Mapping[str, Tensor], variant: Variant, layers: int
) -> tuple[Variant, dict[str, int], list[tuple[str, str]]]:
    """The variant, its sizes by the tensors, and their faults."""
    expected = dict(variant.shapes)
    for number in range(layers):
        expected |= layer_keys(number)
    sizes = _sizes(state, expected, variant)
    return variant, sizes, list(_faults(state, expected, sizes))


def _layer_count(state: Mapping[str, Tensor]) -> int:
    """The largest layer number in any key; a gap is reported as missing keys."""
    numbers = [int(found[1]) for key in state if (found := LAYER.match(key))]
    return min(max(numbers, default=-1) + 1, MOST_LAYERS) or LAYERS


def _sizes(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[Dimension, ...]], variant: Variant
) -> dict[str, int]:
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
    if {"E", "P"} <= sizes.keys():
        sizes |= variant.widths(sizes["E"], sizes["P"])
    if {"RX", "X"} <= sizes.keys() and sizes["X"]:
        sizes["R"] = max(1, round(sizes["RX"] / sizes["X"]))
        sizes["RX"] = sizes["R"] * sizes["X"]
    return sizes


def _listed(faults: list[tuple[str, str]]) -> str:
    """Count faults by kind, and list the first few of each."""
    counts = Counter(kind for kind, _ in faults)
    lines = []
    for kind, count in counts.items():
        lines += [line for of, line in faults if of == kind][:MOST_SHOWN]
        if count > MOST_SHOWN:
            lines.append(f"… and {count - MOST_SHOWN:,} more {kind}")
    return ", ".join(f"{n:,} {kind}" for kind, n in counts.items()) + "\n  " + "\n  ".join(lines)


def _faults(
    state: Mapping[str, Tensor],
    expected: Mapping[str, tuple[Dimension, ...]],
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
        if not fits or 0 in tensor.shape:
            yield "misshapen", f"{key}: {_shape(tensor.shape)} instead of {_shape(wanted)}"
        elif tensor.dtype != kind:
            yield "of another type", f"{key}: {tensor.dtype} instead of {kind}"
        elif tensor.layout != torch.strided or tensor.is_meta:
            yield "of another type", f"{key}: a sparse tensor, or one without values"
        elif not bool(tensor.isfinite().all()):
            yield "with values refused", f"{key}: holds NaN or infinity"
        elif key.endswith(NORM_VARIANCE) and bool((tensor < 0).any()):
            yield "with values refused", f"{key}: holds a negative variance"
        elif key.startswith(TABLE) and key != USER and bool(tensor[0].any()):
            yield "with values refused", f"{key}: row 0 is padding and must be zero"
    for key in state:
        if key not in expected:
            yield "unknown", f"{shown(key)}: unknown"


def _shape(sizes: Iterable[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else f"{size:,}" for size in sizes) + ")"


def _schema(
    variant: Variant, sizes: Mapping[str, int], slots: int, history_length: int, user: str
) -> FeatureSchema:
    """MicroLens' features in the authors' order, at the checkpoint's sizes."""
    width = sizes["E"]
    levels = [
        _categorical("likes_level", sizes["likes"], width),
        _categorical("views_level", sizes["views"], width),
    ]
    tags = _categorical("item_tags", sizes["tags"], width)
    content = {"name": "item_emb_d128", "kind": "dense", "size": sizes["C"], "width": sizes["P"]}
    item = [
        _categorical("item_id", sizes["items"], width),
        {**tags, "kind": "categorical_list", "slots": slots},
        content,
    ]
    users: dict[str, object] = {}
    if variant.has_levels:
        item = levels + item
        users["user"] = [_categorical(user, sizes["users"], width)]
        users["user_identity"] = user
    return FeatureSchema.model_validate(
        {
            "name": "microlens-1m-levels" if variant.has_levels else "microlens-1m",
            "history_length": history_length,
            **users,
            "item": item,
            "identity": "item_id",
            "context": levels,
        }
    )


def _categorical(name: str, vocabulary: int, width: int) -> dict[str, object]:
    return {"name": name, "kind": "categorical", "vocabulary": vocabulary, "width": width}


def _our_name(key: str, user: str) -> str:
    for pattern, ours in OURS:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours.format(user=user), key)
    raise AssertionError(key)
