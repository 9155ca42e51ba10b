"""Reads the weights out of a file of ``torch.save``, however the training script wrapped them.

Nothing in the file is executed. PyTorch's own messages are not shown: they advise to unpickle
the whole file, which would run code from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from feature_store.lfs_pointer import LFS_BYTES, lfs_fault
from model_export.bundle.errors import BundleError
from model_export.fuxictr.names import NORM_COUNT, ROOTS

# Names under which training scripts (Lightning: state_dict) keep the weights beside other state.
HOLDERS = ("state_dict", "model_state_dict", "model")
MOST_DEPTH = 4
# Added to a key by DataParallel and DistributedDataParallel, torch.compile, FSDP, and activation
# checkpointing: around the whole network or any module in it.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
SAVE = "torch.save(model.state_dict(), path)"
AGAIN = "copy it again from its source"


class State(NamedTuple):
    """Tensors of float32 or integers under FuxiCTR's names, and what was changed to get them."""

    tensors: dict[str, Tensor]
    changes: list[str]


def read_state(path: Path) -> State:
    """Read, unwrap and convert a state_dict. Raises BundleError if the file has none."""
    changes: list[str] = []
    found = _unwrapped(path, _loaded(path), changes)
    tensors = _renamed(path, found, changes)
    return State(_converted(tensors, changes), changes)


def _loaded(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(LFS_BYTES)
    except OSError as error:
        folder = " (a folder of our own is exported by `build`)" if path.is_dir() else ""
        raise BundleError(
            f"{path}: not a checkpoint file: {error.strerror or 'cannot be read'}{folder}"
        ) from None
    if fault := lfs_fault(head):
        raise BundleError(f"{path}: {fault}")
    try:
        with warnings.catch_warnings():  # of pickles, which are rejected
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file raises nearly any: torch and pickle share no base
        raise BundleError(f"{path}: not a state_dict: {_why_unreadable(path, head)}") from None


def _why_unreadable(path: Path, head: bytes) -> str:
    if not head:
        return f"the file is empty; {AGAIN}"
    if head.startswith(b"\x80"):  # PyTorch before 1.6, or a plain pickle
        return (
            "the file is damaged, or holds Python objects, which are not read because unpickling "
            f"them runs code; save the weights alone, with {SAVE}"
        )
    if not head.startswith(b"PK"):
        return f"the file is none of torch.save; save the weights with {SAVE}"
    try:
        with ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return f"the file is truncated or damaged; {AGAIN}"
    if "constants.pkl" in names:
        return f"the file is a TorchScript archive; save the weights with {SAVE}"
    if "data.pkl" not in names:
        return f"the file is a zip archive, but none of torch.save; save the weights with {SAVE}"
    objects: list[str] = []
    with suppress(Exception):  # as above
        objects = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    if objects:
        return (
            f"the file holds Python objects ({_some(objects)}), which are not read because "
            f"unpickling them runs code; save the weights alone, with {SAVE}"
        )
    return f"the file is damaged; {AGAIN}"


def _unwrapped(path: Path, found: Any, changes: list[str]) -> Mapping[str, Tensor]:
    """Descend to the mapping of names to tensors."""
    for _ in range(MOST_DEPTH):
        if not isinstance(found, Mapping):
            break
        if _is_state(found):
            return found
        holders = [name for name in HOLDERS if isinstance(found.get(name), Mapping)]
        if len(holders) > 1:
            raise BundleError(
                f"{path}: not a state_dict: has {' and '.join(map(repr, holders))}, and either "
                f"could be the weights; save one of them alone, with {SAVE}"
            )
        if not holders:
            raise BundleError(
                f"{path}: not a state_dict: has no weights under "
                f"{', '.join(map(repr, HOLDERS))}, but {_some(map(shown, found))}; save them with "
                f"{SAVE}"
            )
        beside = [shown(name) for name in found if name != holders[0]]
        unused = f" ({_some(beside)} not used)" if beside else ""
        changes.append(f"weights taken from {holders[0]!r}{unused}")
        found = found[holders[0]]
    raise BundleError(
        f"{path}: not a state_dict: holds no mapping of names to tensors; save one with {SAVE}"
    )


def _is_state(found: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())


def _renamed(path: Path, found: Mapping[str, Tensor], changes: list[str]) -> dict[str, Tensor]:
    """Remove wrappers' parts from keys, then a part before the network that all keys share."""
    parts = {key: key.split(".") for key in found}
    removed = {part: None for of_key in parts.values() for part in of_key if part in WRAPPERS}
    parts = {key: [p for p in of_key if p not in WRAPPERS] for key, of_key in parts.items()}
    while len(first := {of_key[0] if of_key[1:] else "" for of_key in parts.values()}) == 1:
        [prefix] = first
        if not prefix or prefix in ROOTS:
            break
        removed[prefix] = None
        parts = {key: of_key[1:] for key, of_key in parts.items()}
    tensors: dict[str, Tensor] = {}
    for key, tensor in found.items():
        name = ".".join(parts[key])
        if name in tensors:
            raise BundleError(
                f"{path}: two tensors are {shown(name)} without "
                f"{', '.join(f'{shown(p)}.' for p in removed)}; save the weights of one network"
            )
        tensors[name] = tensor
    if removed:
        changes.append(f"{_some(f'{shown(part)}.' for part in removed)} removed from names")
    return tensors


def _converted(tensors: dict[str, Tensor], changes: list[str]) -> dict[str, Tensor]:
    """Convert floating-point tensors to float32.

    A count of batches that was converted with the weights becomes 0: no score uses it.
    """
    for key, tensor in tensors.items():
        if key.endswith(NORM_COUNT) and tensor.is_floating_point():
            tensors[key] = torch.zeros_like(tensor, dtype=torch.int64)
    others = [
        str(t.dtype).removeprefix("torch.")
        for t in tensors.values()
        if t.is_floating_point() and t.dtype != torch.float32
    ]
    if not others:
        return tensors
    kinds = ", ".join(sorted(set(others)))
    changes.append(f"{len(others):,} tensors converted from {kinds} to float32")
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}


def shown(name: object) -> str:
    """A name of the file as a message has it: printable, and no longer than 100 characters."""
    text = str(name)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 100 else text[:99] + "…"


def _some(names: Iterator[str] | list[str] | map[str], most: int = 4) -> str:
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more:,} more" if more > 0 else "")
