"""Saves and loads checkpoints: a folder with weights, schema, sizes and metrics.

``model.safetensors`` (fp32 tensors by name), ``config.json`` (schema and sizes) and
``metrics.json``. Written under a temporary name and renamed, so that it is complete or absent.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from feature_store.schema import FeatureSchema
from training.qin import QIN, QINSizes

WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"


class CheckpointError(ValueError):
    """An invalid checkpoint; the message names file and remedy."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    feature_schema: FeatureSchema
    sizes: QINSizes


def save(
    folder: Path,
    model: QIN,
    metrics: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a checkpoint, replacing an existing one.

    Raises CheckpointError, and writes nothing, when a weight or a metric is NaN or infinite.
    """
    _check_finite(model, metrics)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
        save_file(tensors, partial / WEIGHTS)
        config = _Config(feature_schema=model.schema, sizes=model.sizes)
        (partial / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")
        (partial / METRICS).write_text(json.dumps(dict(metrics), indent=2, allow_nan=False) + "\n")
        for name, content in (extra_files or {}).items():
            (partial / name).write_bytes(content)
        partial.chmod(0o755)
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_finite(model: QIN, metrics: Mapping[str, Any]) -> None:
    for name, tensor in model.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{name} holds NaN or infinity: training diverged")
    try:
        json.dumps(dict(metrics), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{METRICS}: {error}") from error


def _replace(partial: Path, folder: Path) -> None:
    """Replace ``folder`` by ``partial``; a rename cannot replace a folder that is not empty."""
    if folder.exists():
        old = partial.with_name(partial.name + "-old")
        os.rename(folder, old)
        os.rename(partial, folder)
        shutil.rmtree(old)
    else:
        os.rename(partial, folder)


def load(folder: Path) -> QIN:
    """Load a network in eval mode. Raises CheckpointError."""
    try:
        config = _Config.model_validate_json((folder / CONFIG).read_bytes())
        tensors = load_file(folder / WEIGHTS)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: not a checkpoint: {error}; make one with `python -m training fit`"
        ) from error
    except ValidationError as error:
        faults = "; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors(include_url=False))
        raise CheckpointError(f"{folder / CONFIG}: {faults}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: damaged ({error}); train again") from error
    model = QIN(config.feature_schema, config.sizes)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit {CONFIG}: {error}") from error
    return model.eval()


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of training. Raises CheckpointError."""
    try:
        content = json.loads((folder / METRICS).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / METRICS}: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder / METRICS}: not a JSON object")
    return content
