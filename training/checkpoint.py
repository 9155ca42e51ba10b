"""Saves and loads checkpoints: a folder with weights, schema, sizes and metrics.

``model.safetensors`` (fp32 tensors by name), ``config.json`` (schema and sizes) and
``metrics.json``, with the SHA-256 of the files that scores follow from. Written under a temporary
name and renamed, so that it is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from feature_store.lfs_pointer import LFS_BYTES, lfs_fault
from feature_store.schema import FeatureSchema
from feature_store.temporary_folders import replace_folder, temporary_folder
from feature_store.wording import details, worded
from training.output import writing
from training.qin import QIN, QINSizes
from training.recipe import Recipe, differences

DATA = "data"  # digest of a run's data, in the metrics
FILES = "files"  # SHA-256 of files by name, in the metrics
WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"
USER_INDEX = "user_index.parquet"  # a users file, where training found the users' indices
MOST_SHOWN = 4  # tensors that do not fit


class CheckpointError(ValueError):
    """An invalid checkpoint; the message names file and remedy."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    feature_schema: FeatureSchema
    sizes: QINSizes


def check_out(folder: Path) -> None:
    """Raise CheckpointError where a checkpoint has no place, or would replace other files."""
    if folder.name in ("", ".."):
        raise CheckpointError(f"{folder}: a checkpoint needs a folder of its own, with a name")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give another --out")
    if not folder.is_dir():
        return
    found = sorted(folder.iterdir())
    if found and ((folder / WEIGHTS) not in found or any(path.is_dir() for path in found)):
        raise CheckpointError(
            f"{folder}: holds files that are no checkpoint ({found[0].name}, …), and a checkpoint "
            "replaces the folder; give another --out"
        )


def replaced(folder: Path, recipe: Recipe, schema: FeatureSchema, data: str) -> str:
    """Describe what a run would replace in a folder; empty where it repeats the run of there."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return ""
    try:
        config = _Config.model_validate_json(_opened(folder / CONFIG).read_bytes())
        metrics = read_metrics(folder)
        kept = Recipe.model_validate(metrics.get("recipe"))
    except (CheckpointError, ValidationError):
        return "files that are no checkpoint"
    other = []
    if kept != recipe:
        numbers = differences(kept.model_dump_json(), recipe.model_dump_json())
        other.append(f"another recipe{numbers}")
    if config.feature_schema != schema:
        other.append("another schema")
    if metrics.get(DATA, data) != data:
        other.append("other data")
    if other:
        return f"the checkpoint of {' and '.join(other)}"
    return "" if DATA in metrics else "a checkpoint without a record of its data"


def save(
    folder: Path,
    model: QIN,
    metrics: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a checkpoint, replacing an existing one.

    Raises CheckpointError, and writes nothing, when a weight or a metric is NaN or infinite, or
    when the folder holds other files; OSError when it cannot be written.
    """
    check_out(folder)
    _check_finite(model, metrics)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        _write(folder.resolve(), model, metrics, extra_files or {})  # a link stays one


def _write(
    folder: Path, model: QIN, metrics: Mapping[str, Any], extra_files: Mapping[str, bytes]
) -> None:
    with temporary_folder(folder.parent, folder.name) as partial:
        again = {f"context.{name}.weight" for name in model.schema.shared}
        tensors = {
            name: t.detach().cpu().contiguous()
            for name, t in model.state_dict().items()
            if name not in again
        }
        save_file(tensors, partial / WEIGHTS)
        (partial / WEIGHTS).chmod(0o644)  # safetensors: 0600
        config = _Config(feature_schema=model.schema, sizes=model.sizes)
        (partial / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", "utf-8")
        for name, content in extra_files.items():
            (partial / name).write_bytes(content)
        kept = dict(metrics) | {FILES: digests(partial, (WEIGHTS, CONFIG, USER_INDEX))}
        (partial / METRICS).write_text(json.dumps(kept, indent=2, allow_nan=False) + "\n")
        replace_folder(partial, folder)


def is_finite(model: QIN) -> bool:
    """Whether every weight and statistic is finite: whether it can be saved."""
    return next(_not_finite(model), None) is None


def _not_finite(model: QIN) -> Iterator[str]:
    return (n for n, tensor in model.state_dict().items() if not bool(tensor.isfinite().all()))


def _check_finite(model: QIN, metrics: Mapping[str, Any]) -> None:
    for name in _not_finite(model):
        raise CheckpointError(f"{name} holds NaN or infinity: training diverged")
    try:
        json.dumps(dict(metrics), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{METRICS}: {error}") from error


def load(folder: Path) -> QIN:
    """Load a network in eval mode. Raises CheckpointError."""
    if folder.is_file():
        raise CheckpointError(
            f"{folder}: a file, and a checkpoint is a folder; convert weights of FuxiCTR with "
            "`python -m model_export import-fuxictr`"
        )
    try:
        config = _Config.model_validate_json(_opened(folder / CONFIG).read_bytes())
    except ValidationError as error:
        if any(fault["loc"] == ("vocab_size",) for fault in details(error)):
            raise CheckpointError(
                f"{folder / CONFIG}: of an encoder's checkpoint; `python -m text` reads those"
            ) from error
        raise CheckpointError(f"{folder / CONFIG}: {worded(error)}") from error
    try:
        tensors = load_file(_opened(folder / WEIGHTS))
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: damaged or truncated: copy the checkpoint again, or train again"
        ) from error
    model = QIN(config.feature_schema, config.sizes)
    for name in model.schema.shared:  # one table: written once
        table = tensors.get(f"item_vector.embedding.{name}.weight")
        if table is not None:
            tensors[f"context.{name}.weight"] = table
    if misfits := list(_misfits(model.state_dict(), tensors)):
        more = len(misfits) - MOST_SHOWN
        raise CheckpointError(
            f"{folder / WEIGHTS}: does not fit {CONFIG}: {'; '.join(misfits[:MOST_SHOWN])}"
            + (f"; and {more:,} more" if more > 0 else "")
        )
    model.load_state_dict(tensors)
    if (folder / METRICS).exists():
        check_digests(folder, METRICS, _record(folder), (WEIGHTS, CONFIG, USER_INDEX))
    return model.eval()


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of those of the files that a folder has."""
    found = {}
    for name in names:
        if (folder / name).exists():
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_digests(
    folder: Path, record: str, content: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Raise CheckpointError for a file that is not the one whose digest ``content``, that of the
    file ``record``, keeps. Earlier releases kept none.
    """
    kept = content.get(FILES, {})
    if not isinstance(kept, dict):
        raise CheckpointError(f"{folder / record}: {FILES}: not a mapping")
    for name, digest in digests(folder, names).items():
        if kept.get(name, digest) != digest:
            raise CheckpointError(
                f"{folder / name}: not the file that {record} has the SHA-256 of: damaged, or of "
                "another checkpoint; copy the checkpoint again, or train again (where it was "
                f"changed on purpose, remove its line from {FILES} there)"
            )


def _opened(path: Path) -> Path:
    """Check that a file of a checkpoint can be read and is no Git LFS pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(LFS_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{path.parent}: not a checkpoint: {path.name}: {error.strerror}; "
            "make one with `python -m training fit`"
        ) from error
    if fault := lfs_fault(head):
        raise CheckpointError(f"{path}: {fault}")
    return path


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in expected.items():
        if name not in found:
            yield f"{name} is missing"
        elif found[name].shape != tensor.shape:
            yield f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        elif found[name].is_floating_point() != tensor.is_floating_point():
            yield f"{name} is {found[name].dtype} instead of {tensor.dtype}"
    yield from (f"{name} is unknown" for name in found if name not in expected)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of training. Raises CheckpointError."""
    return {name: value for name, value in _record(folder).items() if name != FILES}


def _record(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(_opened(folder / METRICS).read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / METRICS}: not JSON; train again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder / METRICS}: not a JSON object")
    return content
