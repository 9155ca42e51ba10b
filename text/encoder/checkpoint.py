"""Saves and loads encoders in the published layout: a folder with weights, sizes and tokenizer.

``model.safetensors`` (fp32, the published tensor names), ``config.json`` (the published keys),
``tokenizer.json`` and, of a run of our own, ``training.json``, with the SHA-256 of the others.
Written under a temporary name and renamed, so that it is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from feature_store.temporary_folders import replace_folder, temporary_folder
from feature_store.wording import details, reason, worded
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.sizes import EncoderSizes, Variant, vocabulary_fault
from text.encoder.weights import opened
from text.tokenizer import FILE as TOKENIZER
from text.tokenizer import TextTokenizer, TokenizerError
from training.checkpoint import FILES, CheckpointError, check_digests, check_out, digests
from training.output import writing

WEIGHTS, CONFIG, TRAINING = "model.safetensors", "config.json", "training.json"
ANSWERING = (WEIGHTS, CONFIG, TOKENIZER)  # files that vectors follow from
HEAD = "cls."
LONGEST = 8192
MOST_SHOWN = 4

_KEYS = {
    "vocab_size": "vocabulary",
    "hidden_size": "hidden",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "intermediate",
    "type_vocab_size": "token_types",
    "layer_norm_eps": "norm_epsilon",
    "initializer_range": "initial_deviation",
}
GATED: dict[str, Literal["gelu", "relu"]] = {"geglu": "gelu", "reglu": "relu"}
PUBLISHED = {own: published for published, own in _KEYS.items()}


class _Stage(BaseModel):
    steps: int = 0
    longest: int = 0


class _Recipe(BaseModel):
    masked: _Stage = _Stage()
    pairs: _Stage = _Stage()
    multi_task: _Stage = _Stage()


class _Corpus(BaseModel):
    digest: str | None = None
    languages: list[str] = []


class _Start(BaseModel):
    digest: str = ""


class _Training(BaseModel):
    """What is read of ``training.json``, where it is there."""

    stages: list[str] = []
    history: list[dict[str, Any]] = []
    recipe: _Recipe = _Recipe()
    corpus: _Corpus = _Corpus()
    start: _Start = _Start()


@dataclass(frozen=True)
class Checkpoint:
    """An encoder as read from its folder; ``head`` is the masked-language head, if kept."""

    network: JinaBert
    head: MaskedLanguageHead | None
    tokenizer: TextTokenizer
    training: Mapping[str, Any]


def save(
    folder: Path,
    network: JinaBert,
    head: MaskedLanguageHead | None,
    tokenizer: TextTokenizer,
    training: Mapping[str, Any],
) -> None:
    """Write a checkpoint, replacing the folder's.

    Raises CheckpointError when the folder holds other files, OSError when it cannot be written.
    """
    check_out(folder)
    tensors = dict(network.state_dict())
    if head is not None:
        tensors |= {f"{HEAD}{name}": tensor for name, tensor in head.state_dict().items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()  # a link stays one
    with writing(folder), temporary_folder(folder.parent, folder.name) as new:
        save_file({name: x.contiguous() for name, x in tensors.items()}, new / WEIGHTS)
        (new / WEIGHTS).chmod(0o644)  # safetensors: 0600
        _write(new / CONFIG, to_config(network.sizes) | {"pad_token_id": tokenizer.pad})
        tokenizer.save(new)
        _write(new / TRAINING, {**training, FILES: digests(new, ANSWERING)})
        replace_folder(new, folder)


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError."""
    _check_files(folder)
    config = _read(folder / CONFIG)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
        tokenizer = TextTokenizer.load(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: damaged or truncated: {worded(error)}; copy the checkpoint again"
        ) from error
    except TokenizerError as error:
        raise CheckpointError(str(error)) from error
    if (gate := config.get("feed_forward_type")) not in list(GATED):
        raise CheckpointError(
            f"{folder / CONFIG}: feed_forward_type is {gate or 'absent'}; it must be geglu or reglu"
        )
    try:
        sizes = from_config(config, variant_of(tensors))
    except ValidationError as error:
        raise CheckpointError(f"{folder / CONFIG}: {size_faults(error)}") from error
    except KeyError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error.args[0]} is missing") from error
    if fault := vocabulary_fault(tokenizer.vocabulary, sizes.vocabulary):
        raise CheckpointError(f"{folder}: {fault} of {CONFIG}: files of two checkpoints")
    network, head = JinaBert(sizes), MaskedLanguageHead(sizes)
    own = {name: x for name, x in tensors.items() if not name.startswith(HEAD)}
    of_head = {name.removeprefix(HEAD): x for name, x in tensors.items() if name.startswith(HEAD)}
    _fill(network, own, path)
    if of_head:
        _fill(head, of_head, path)
    training = _training(folder / TRAINING)
    check_digests(folder, TRAINING, training, ANSWERING)
    training.pop(FILES, None)  # of these files, not of what is trained on from here
    network.eval()
    return Checkpoint(network, head.eval() if of_head else None, tokenizer, training)


def _check_files(folder: Path) -> None:
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: not a checkpoint of an encoder: no {name}; `python -m text fit` or "
                "`import-jina` writes one"
            )
        opened(folder / name)


def _training(path: Path) -> dict[str, Any]:
    """Read what ``training.json`` keeps; nothing where it is absent."""
    if not path.exists():
        return {}
    content = _read(path)
    try:
        _Training.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {worded(error)}") from error
    return content


def digest(folder: Path) -> str:
    """Return the SHA-256 over weights, sizes and tokenizer. Raises CheckpointError."""
    _check_files(folder)
    found = hashlib.sha256()
    for name in ANSWERING:
        with (folder / name).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def variant_of(tensors: Mapping[str, Tensor]) -> Variant:
    """Tell the variant by the tensors present: names in ``config.json`` change when it is saved."""
    if any(".mlp.up_gated_layer." in name for name in tensors):
        return "code"
    return "qk_norm" if any(".layer_norm_q." in name for name in tensors) else "base"


def to_config(sizes: EncoderSizes) -> dict[str, Any]:
    """Return sizes by the published keys."""
    return {published: getattr(sizes, own) for published, own in _KEYS.items()} | {
        "architectures": ["JinaBertForMaskedLM"],
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "torch",
        "emb_pooler": "mean",
        "feed_forward_type": "geglu" if sizes.activation == "gelu" else "reglu",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "max_position_embeddings": LONGEST,
        "model_type": "bert",
        "position_embedding_type": "alibi",
    }


def from_config(config: Mapping[str, Any], variant: Variant) -> EncoderSizes:
    """Return the sizes of a published configuration. Raises ValidationError and KeyError."""
    sizes = {own: config[published] for published, own in _KEYS.items()}
    return EncoderSizes(variant=variant, activation=GATED[config["feed_forward_type"]], **sizes)


def size_faults(error: ValidationError) -> str:
    """Word what is wrong with sizes, by the published keys."""
    return "; ".join(
        f"{'.'.join(PUBLISHED.get(str(part), str(part)) for part in fault['loc'])}: "
        f"{reason(fault)}".removeprefix(": ")
        for fault in details(error)
    )


def _fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = module.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in tensors]
    faults += [f"{name} is foreign" for name in tensors if name not in wanted]
    for name, tensor in wanted.items():
        found = tensors.get(name, tensor)
        if found.shape != tensor.shape:
            faults.append(f"{name} has shape {tuple(found.shape)}, not {tuple(tensor.shape)}")
        elif not found.is_floating_point():
            faults.append(f"{name} holds {str(found.dtype).removeprefix('torch.')}")
        elif not bool(found.isfinite().all()):
            faults.append(f"{name} holds numbers that are not finite")
    if faults:
        more = f" and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
        raise CheckpointError(f"{path}: {'; '.join(faults[:MOST_SHOWN])}{more}")
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {worded(error)}") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON: {error}; copy the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content
