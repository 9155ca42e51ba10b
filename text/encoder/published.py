"""Reads published checkpoints of JinaBERT: base-de, base-es, base-en, small-en, base-code.

The variant follows from the tensors present: names in ``config.json`` are rewritten on every
save. Weights, configuration, tokenizer and the modules of sentence-transformers are held against
each other; what does not fit is named, since loaders that go by one file alone give vectors
without an error.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from text.encoder.checkpoint import CONFIG, MOST_SHOWN, from_config, size_faults
from text.encoder.jinabert import JinaBert
from text.encoder.published_tokenizer import read_tokenizer
from text.encoder.sizes import EncoderSizes, Variant, vocabulary_fault
from text.encoder.weights import (
    AGAIN,
    FILES,
    Weights,
    is_there,
    one_line,
    read_mapping,
    read_object,
    read_weights,
)
from text.tokenizer import TextTokenizer
from training.checkpoint import CheckpointError

MODULES = "modules.json"  # of sentence-transformers
PLACE = re.compile(r"[\w.+/-]*")  # of a module
# Its settings that change texts; the published folders have them off.
TEXT_SETTINGS = (
    ("sentence_bert_config.json", "do_lower_case"),
    ("config_sentence_transformers.json", "default_prompt_name"),
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PREFIX = re.compile(r"((?:[^.]+\.)*?)(?:embeddings|encoder\.layer)\.")
UNUSED = re.compile(  # pooler, masked-language and next-sentence heads, buffers of old versions
    r"(?:[^.]+\.)?(?:pooler\.dense\.(?:weight|bias)"
    r"|cls\.predictions\.(?:bias|decoder\.(?:weight|bias)"
    r"|transform\.(?:dense|LayerNorm)\.(?:weight|bias))"
    r"|cls\.seq_relationship\.(?:weight|bias)"
    r"|embeddings\.(?:position_ids|token_type_ids)|encoder\.alibi)"
)
DEFAULTS = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "initializer_range": 0.02}
GATES = {"gelu": "geglu", "relu": "reglu"}  # hidden_act → feed_forward_type


@dataclass(frozen=True)
class Published:
    """A published checkpoint, its network in float32; ``notes`` are assumptions and surplus."""

    network: JinaBert
    tokenizer: TextTokenizer
    weights: Path
    precision: str  # of the weights' file
    unused: list[str]  # tensors
    notes: list[str]

    @property
    def is_half(self) -> bool:
        return self.precision in ("float16", "bfloat16")


def read(folder: Path) -> Published:
    """Read a folder. Raises CheckpointError naming file, fault and remedy, in one line."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: not a folder; give a published checkpoint's")
    names = [path.name for path in folder.iterdir()]
    if not any(name.startswith((CONFIG, MODULES, *FILES)) for name in names):
        raise CheckpointError(
            f"{folder}: not a checkpoint's folder: neither {CONFIG} nor weights; give the folder "
            "that a download has them in"
        )
    try:
        return _read(folder)
    except CheckpointError as error:  # which quotes names and values of the files
        raise CheckpointError(one_line(str(error))) from error


def _read(folder: Path) -> Published:
    root = _check_modules(folder)
    _check_settings({folder, root})
    path, notes = root / CONFIG, list[str]()
    config = _config(path, notes)
    weights = read_weights(root)
    own, prefix, unused = _own(weights)
    sizes = _sizes(path, config, own)
    _check(weights.path, own, prefix, sizes)
    tokenizer = read_tokenizer(root)
    if fault := vocabulary_fault(tokenizer.vocabulary, sizes.vocabulary):
        raise CheckpointError(f"{root}: {fault} of {CONFIG}: files of two checkpoints; {AGAIN}")
    if sizes.vocabulary > tokenizer.vocabulary:
        rows, tokens = sizes.vocabulary, tokenizer.vocabulary
        notes.append(f"{rows - tokens} rows of the word table's {rows} belong to no token")
    if config.get("pad_token_id") not in (None, tokenizer.pad):
        theirs = config["pad_token_id"]
        notes.append(f"padding is {theirs!r} in {CONFIG}; {tokenizer.pad}, the tokenizer's, holds")
    network = _laid_out(sizes)
    # Cloned: tensors of a file may be parts of one storage, which safetensors does not write.
    network.load_state_dict({name: x.float().clone() for name, x in own.items()}, assign=True)
    precision = Counter(str(x.dtype).removeprefix("torch.") for x in own.values())
    return Published(
        network.eval(), tokenizer, weights.path, precision.most_common(1)[0][0], unused, notes
    )


def _config(path: Path, notes: list[str]) -> dict[str, Any]:
    """Read ``config.json`` and refuse other models."""
    config = {key: value for key, value in read_mapping(path).items() if value is not None}
    kind, position = config.get("model_type", "bert"), config.get("position_embedding_type")
    if kind not in ("bert", "jina_bert", "jinabert") or position != "alibi":
        raise CheckpointError(
            f"{path}: not a JinaBERT: model_type {kind}, position_embedding_type "
            f"{position or 'absent'}; it must be bert and alibi"
        )
    if config.get("emb_pooler", "mean") != "mean":
        raise CheckpointError(f"{path}: emb_pooler is {config['emb_pooler']}; it must be mean")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise CheckpointError(f"{path}: is_decoder or add_cross_attention: not an encoder alone")
    by_act = GATES.get(str(config.get("hidden_act")))
    if "feed_forward_type" not in config and by_act:
        config["feed_forward_type"] = by_act
        notes.append(f"feed_forward_type is absent: {config['feed_forward_type']} by hidden_act")
    gate = config.get("feed_forward_type")
    if gate not in GATES.values():
        raise CheckpointError(
            f"{path}: feed_forward_type is {gate or 'absent'}; it must be geglu or reglu"
        )
    return DEFAULTS | config


def _own(weights: Weights) -> tuple[dict[str, Tensor], str, list[str]]:
    """Return the encoder's tensors without the prefix that they share, and what is not used."""
    found = (PREFIX.match(name) for name in weights.tensors)
    prefixes = Counter(match[1] for match in found if match)
    prefix = prefixes.most_common(1)[0][0] if prefixes else ""
    own: dict[str, Tensor] = {}
    unused = []
    for name, tensor in weights.tensors.items():
        short = name.removeprefix(prefix)
        if UNUSED.fullmatch(short):
            unused.append(name)
        elif short in own:
            raise CheckpointError(
                f"{weights.path}: both {short} and {prefix}{short} are there; {AGAIN}"
            )
        else:
            own[short] = tensor
    return own, prefix, unused


def _sizes(path: Path, config: Mapping[str, Any], own: Mapping[str, Tensor]) -> EncoderSizes:
    """Return the sizes of the variant whose tensors are there: that with the fewest odd ones."""
    try:
        every = [from_config(config, variant) for variant in reversed(get_args(Variant))]
    except KeyError as error:
        raise CheckpointError(f"{path}: {error.args[0]} is missing") from error
    except ValidationError as error:
        raise CheckpointError(f"{path}: {size_faults(error)}") from error
    return min(every, key=lambda sizes: len(_shapes(sizes).keys() ^ own.keys()))


def _shapes(sizes: EncoderSizes) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _laid_out(sizes).state_dict().items()}


def _laid_out(sizes: EncoderSizes) -> JinaBert:
    """Build a network whose tensors have shapes alone."""
    with torch.device("meta"), _NothingDrawn():
        return JinaBert(sizes)


class _NothingDrawn(TorchFunctionMode):
    """Leaves out normal draws: for tensors without memory PyTorch imports sympy first, 2.4 s."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def _check(path: Path, own: Mapping[str, Tensor], prefix: str, sizes: EncoderSizes) -> None:
    """Name tensors that are missing, foreign, misshapen, quantised or not finite."""
    wanted = _shapes(sizes)
    faults = [f"{prefix}{name} is missing" for name in wanted if name not in own]
    faults += [f"{prefix}{name} is foreign" for name in own if name not in wanted]
    for name in (name for name in wanted if name in own):
        tensor = own[name]
        if tensor.shape != wanted[name]:
            expected = tuple(wanted[name])
            faults.append(f"{prefix}{name} has shape {tuple(tensor.shape)}, not {expected}")
        elif tensor.dtype not in FLOATS:
            faults.append(f"{prefix}{name} holds {str(tensor.dtype).removeprefix('torch.')}")
        elif not bool(torch.isfinite(tensor.float()).all()):
            faults.append(f"{prefix}{name} holds numbers that are not finite")
    if faults:
        more = f" and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
        raise CheckpointError(
            f"{path}: {'; '.join(faults[:MOST_SHOWN])}{more}, by the sizes of {CONFIG} and the "
            f"variant {sizes.variant}: download both files again, or the checkpoint is another "
            "model's"
        )


def _check_modules(folder: Path) -> Path:
    """Return the folder of the transformer; refuse other poolings and modules behind them."""
    path = folder / MODULES
    if not is_there(path):
        if is_there(pooling := folder / "1_Pooling" / CONFIG):
            _check_pooling(pooling)
        return folder
    modules, root = read_object(path), folder
    for module in modules if isinstance(modules, list) else [modules]:
        entry = module if isinstance(module, dict) else {}
        kind = str(entry.get("type")).rpartition(".")[2]
        named = str(entry.get("path", ""))
        place = folder / named
        inside = os.path.realpath(folder)  # not resolve(), which raises for a loop of links
        if not PLACE.fullmatch(named) or not Path(os.path.realpath(place)).is_relative_to(inside):
            raise CheckpointError(f"{path}: the path {named} is not in the folder; {AGAIN}")
        if kind == "Pooling":
            _check_pooling(place / CONFIG)
        elif kind == "Transformer":
            root = place
        elif kind != "Normalize":
            raise CheckpointError(
                f"{path}: a module {kind} changes the vectors, and would be left out"
            )
    return root


def _check_settings(places: Collection[Path]) -> None:
    """Refuse settings of sentence-transformers that change texts before they are encoded."""
    for place, (name, key) in product(places, TEXT_SETTINGS):
        if is_there(place / name) and (value := read_mapping(place / name).get(key)):
            raise CheckpointError(
                f"{place / name}: {key} is {value}, which changes texts before they are encoded, "
                "and would be left out; take it out of the file, and change texts beforehand"
            )


def _check_pooling(path: Path) -> None:
    config = read_mapping(path)
    old = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    modes = config.get("pooling_mode", old)
    if modes not in ("mean", ["mean"], ["pooling_mode_mean_tokens"]):
        raise CheckpointError(f"{path}: pooling is {modes or 'none'}; it must be the mean alone")
