"""Reads the tensors of a published folder: safetensors or PyTorch, whole or in shards."""

from __future__ import annotations

import json
import re
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from feature_store.lfs_pointer import LFS_BYTES, lfs_fault
from feature_store.wording import worded
from training.checkpoint import CheckpointError

INDEX = ".index.json"
FILES = ("model.safetensors", "pytorch_model.bin")
FILE = re.compile(r"\w[\w.+-]*")  # a shard's name
MOST_MESSAGE = 1000  # characters
AGAIN = "download the folder again"


@dataclass(frozen=True)
class Weights:
    """Tensors by the names of the file; ``path`` is the file, or the index of its shards."""

    path: Path
    tensors: dict[str, Tensor]


def read_weights(folder: Path) -> Weights:
    """Read a folder's weights. Raises CheckpointError."""
    for name in FILES:
        for path in (folder / name, folder / f"{name}{INDEX}"):
            if is_there(path):
                return Weights(path, _sharded(path) if path.name.endswith(INDEX) else _read(path))
    raise CheckpointError(f"{folder}: no weights: neither {' nor '.join(FILES)}, whole or sharded")


def one_line(message: str) -> str:
    """Bound a message that quotes names and values of files, and escape what is not printable."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    half = MOST_MESSAGE // 2
    return shown if len(shown) <= MOST_MESSAGE else f"{shown[:half]} … {shown[-half:]}"


def is_there(path: Path) -> bool:
    """Tell whether a name is taken, also by a link to a file that was not downloaded."""
    return path.exists() or path.is_symlink()


def opened(path: Path) -> bytes:
    """Return a file's first bytes. Raises CheckpointError where it is absent or not downloaded."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe waits for its writer
            raise CheckpointError(f"{path}: not a file; {AGAIN}")
        with path.open("rb") as file:
            head = file.read(LFS_BYTES)
    except OSError as error:
        of = "a link to a file that is not there" if path.is_symlink() else worded(error)
        raise CheckpointError(f"{path}: {of}; {AGAIN}") from error
    if fault := lfs_fault(head):
        raise CheckpointError(f"{path}: {fault}")
    return head


def read_object(path: Path) -> Any:
    """Read a JSON file. Raises CheckpointError."""
    opened(path)
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {worded(error)}; {AGAIN}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises CheckpointError."""
    content = read_object(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object; {AGAIN}")
    return content


def _sharded(index: Path) -> dict[str, Tensor]:
    shards = read_mapping(index).get("weight_map")
    if (
        not isinstance(shards, dict)
        or not shards
        or not all(isinstance(name, str) and FILE.fullmatch(name) for name in shards.values())
    ):
        raise CheckpointError(
            f"{index}: weight_map has no file of the folder for every tensor; {AGAIN}"
        )
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(shards.values())):
        found = _read(index.parent / name)
        listed = {tensor for tensor, shard in shards.items() if shard == name}
        if differing := sorted(listed ^ found.keys()):
            raise CheckpointError(
                f"{index.parent / name}: {differing[0]} is in the shard or in {index.name}, not "
                f"in both: files of two downloads; {AGAIN}"
            )
        tensors |= found
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    head = opened(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: not safetensors: {worded(error)}; {AGAIN}") from error
    try:
        with warnings.catch_warnings():  # of pickles, which are refused
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly any: torch and pickle share no base
        holds = "truncated or damaged" if head[:2] == b"PK" else "not a file of torch.save"
        raise CheckpointError(
            f"{path}: {holds}, or holds Python objects, which are not read because unpickling "
            "them runs code; download it again, or ask for a safetensors file"
        ) from error
    return _state_dict(path, content)


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of the only one within a training checkpoint."""
    if not _has_tensors(content) and isinstance(content, Mapping):
        inner = [value for value in content.values() if _has_tensors(value)]
        content = inner[0] if len(inner) == 1 else None
    if not _has_tensors(content) or not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: not a state dict: no tensors by name; {AGAIN}")
    for name, value in content.items():
        if fault := _tensor_fault(value):
            raise CheckpointError(f"{path}: {name} is {fault}; {AGAIN}")
    return {str(name): value.detach() for name, value in content.items()}


def _tensor_fault(value: object) -> str | None:
    if not isinstance(value, Tensor):
        return f"not a tensor: {type(value).__name__}"
    if value.is_nested or value.is_meta or value.layout != torch.strided:
        return "a tensor without a number for every place: sparse, nested or of no data"
    return None


def _has_tensors(content: object) -> bool:
    return isinstance(content, Mapping) and any(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
