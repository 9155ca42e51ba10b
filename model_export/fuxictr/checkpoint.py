"""Imports the authors' checkpoints (FuxiCTR's ``.model``, a PyTorch state_dict).

Every key is checked against a table of symbolic shapes. Sizes are decided by a majority of the
tensors, so that a single odd one is reported; all missing, surplus and misshapen keys are reported
together.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor

from feature_store.schema import FeatureSchema
from model_export.bundle.errors import BundleError
from model_export.fuxictr.names import EMBEDDING, LAYERS, OURS, SHAPES, Dimension, layer_keys
from training.qin import QIN, QINSizes

LAYER = re.compile(r"qnn\.(?:layer|norm|activation)\.(\d+)\.")
MOST_LAYERS = 32
NORM_COUNT = "num_batches_tracked"


def read_state(path: Path) -> dict[str, Tensor]:
    """Load a state_dict with ``weights_only``: nothing in the file is executed."""
    try:
        with warnings.catch_warnings():  # of pickles, which are rejected
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, BadZipFile, pickle.UnpicklingError) as e:
        reason = str(e).partition("\n")[0] or type(e).__name__
        raise BundleError(
            f"{path}: not a state_dict of weights only: {reason}; save it with "
            "torch.save(model.state_dict(), path)"
        ) from e
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise BundleError(f"{path}: not a mapping of names to tensors, so not a state_dict")
    return dict(state)


def import_network(
    state: Mapping[str, Tensor], slots: int, history_length: int, source: str
) -> QIN:
    """Build the network, in eval mode. Raises BundleError listing all faults."""
    layers = _layer_count(state)
    expected = SHAPES | {k: s for n in range(layers) for k, s in layer_keys(n).items()}
    sizes = _sizes(state, expected)
    faults = list(_faults(state, expected, sizes))
    if faults:
        listed = "\n  ".join(faults)
        raise BundleError(
            f"{source}: {len(faults)} keys do not fit QIN_variety_v9:\n  {listed}\n"
            "was it saved by another model, or with other features?"
        )
    schema = _schema(sizes, slots, history_length)
    network = QIN(schema, QINSizes(attention_width=sizes["A"], layers=layers, rows=sizes["R"]))
    network.load_state_dict({_our_name(key): tensor for key, tensor in state.items()})
    return network.eval()


def _layer_count(state: Mapping[str, Tensor]) -> int:
    """The largest layer number in any key; a gap is reported as missing keys."""
    numbers = [int(found[1]) for key in state if (found := LAYER.match(key))]
    return min(max(numbers, default=-1) + 1, MOST_LAYERS) or LAYERS


def _sizes(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[Dimension, ...]]
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
        sizes["D"] = 2 * sizes["E"] + sizes["P"]
        sizes["X"] = 2 * sizes["E"] + 2 * sizes["D"]
    if {"RX", "X"} <= sizes.keys() and sizes["X"]:
        sizes["R"] = max(1, round(sizes["RX"] / sizes["X"]))
        sizes["RX"] = sizes["R"] * sizes["X"]
    return sizes


def _faults(
    state: Mapping[str, Tensor],
    expected: Mapping[str, tuple[Dimension, ...]],
    sizes: Mapping[str, int],
) -> Iterator[str]:
    for key, shape in expected.items():
        wanted = tuple(sizes.get(d) if isinstance(d, str) else d for d in shape)
        sizes_wanted = (
            "(" + ", ".join("?" if size is None else f"{size:,}" for size in wanted) + ")"
        )
        if key not in state:
            yield f"{key}: missing, {sizes_wanted} expected"
            continue
        tensor = state[key]
        fits = len(tensor.shape) == len(wanted) and all(
            size in (None, found) for size, found in zip(wanted, tensor.shape, strict=True)
        )
        kind = torch.int64 if key.endswith(NORM_COUNT) else torch.float32
        if not fits:
            found = "(" + ", ".join(f"{size:,}" for size in tensor.shape) + ")"
            yield f"{key}: {found} instead of {sizes_wanted}"
        elif tensor.dtype != kind:
            yield f"{key}: {tensor.dtype} instead of {kind}"
        elif not bool(tensor.isfinite().all()):
            yield f"{key}: holds NaN or infinity"
        elif key in EMBEDDING and bool(tensor[0].any()):
            yield f"{key}: row 0 is padding and must be zero"
    for key in state:
        if key not in expected:
            yield f"{key}: unknown"


def _schema(sizes: Mapping[str, int], slots: int, history_length: int) -> FeatureSchema:
    """MicroLens' features in the authors' order, at the checkpoint's sizes."""
    width = sizes["E"]
    dense = {"kind": "dense", "size": sizes["C"], "width": sizes["P"]}
    return FeatureSchema.model_validate(
        {
            "name": "microlens-1m",
            "history_length": history_length,
            "item": [
                _categorical("item_id", sizes["items"], width),
                {
                    **_categorical("item_tags", sizes["tags"], width),
                    "kind": "categorical_list",
                    "slots": slots,
                },
                {"name": "item_emb_d128", **dense},
            ],
            "identity": "item_id",
            "context": [
                _categorical("likes_level", sizes["likes"], width),
                _categorical("views_level", sizes["views"], width),
            ],
        }
    )


def _categorical(name: str, vocabulary: int, width: int) -> dict[str, object]:
    return {"name": name, "kind": "categorical", "vocabulary": vocabulary, "width": width}


def _our_name(key: str) -> str:
    for pattern, ours in OURS:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    raise AssertionError(key)
