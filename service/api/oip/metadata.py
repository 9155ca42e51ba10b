"""Metadata of server, model and tensors, as the protocol defines them."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from feature_store.schema import Categorical, Numeric
from service.api.oip.inputs import DATATYPE, HISTORY, IDS, ITEMS, NUMBER, USER
from service.api.oip.outputs import DATATYPES
from service.models.loaded_model import LoadedModel
from service.settings import Settings

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
CONFIGURED = {"BYTES": "STRING"}  # what Triton's configuration calls it
PLATFORM, ANY = "onnxruntime_onnx", -1


def server_metadata() -> dict[str, Any]:
    version = version_of("qin-serving")
    return {"name": "qin-serving", "version": version, "extensions": EXTENSIONS}


def model_metadata(
    settings: Settings, version: LoadedModel, versions: list[str], id_type: str
) -> dict[str, Any]:
    return {
        "name": settings.model_name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in _inputs(version, id_type).items()
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [ANY]}
            for name, datatype in DATATYPES.items()
        ],
    }


def model_config(settings: Settings, version: LoadedModel, id_type: str) -> dict[str, Any]:
    """Triton's ``ModelConfig``, as far as it applies; limits of this service as ``parameters``."""
    limits = {
        "max_candidates": settings.max_candidates,
        "max_history": version.schema.history_length,
        **{
            f"{f.name}_vocabulary": f.vocabulary
            for f in (*version.schema.context, *version.schema.request)
            if isinstance(f, Categorical)
        },
    }
    return {
        "name": settings.model_name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [version.name]}},
        "max_batch_size": 0,  # a request is one user's whole list
        "input": [
            {
                "name": name,
                "data_type": f"TYPE_{CONFIGURED.get(datatype, datatype)}",
                "dims": shape,
                "optional": name not in (USER, ITEMS),
            }
            for name, (datatype, shape) in _inputs(version, id_type).items()
        ],
        "output": [
            {"name": name, "data_type": f"TYPE_{datatype}", "dims": [ANY]}
            for name, datatype in DATATYPES.items()
        ],
        "instance_group": [{"kind": "KIND_CPU", "count": settings.engine_threads}],
        "parameters": {name: {"string_value": str(limit)} for name, limit in limits.items()},
    }


def _inputs(version: LoadedModel, id_type: str) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each."""
    ids = {USER: (id_type, [1]), ITEMS: (id_type, [ANY]), HISTORY: (id_type, [ANY])}
    features = {feature.name: (DATATYPE, [ANY]) for feature in version.schema.context}
    for feature in version.schema.request:
        if feature.name not in IDS:
            features[feature.name] = (NUMBER if isinstance(feature, Numeric) else DATATYPE, [1])
    return ids | features
