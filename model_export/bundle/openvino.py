"""Registers onnxruntime's OpenVINO plugin (the extra ``openvino``) and configures its sessions."""

from __future__ import annotations

import json
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import onnxruntime

from model_export.bundle.errors import ProviderError, said

PACKAGE, MODULE = "onnxruntime-ep-openvino", "onnxruntime_ep_openvino"
NAME = "OpenVINOExecutionProvider"
REMEDY = "set provider=cpu"
MISSING = (
    "requires the extra openvino: pip install -c constraints.txt 'qin-serving[openvino]'; "
    f"or {REMEDY}"
)


def is_installed() -> bool:
    return find_spec(MODULE) is not None


def is_usable() -> bool:
    """Whether the plugin is installed and supports this processor: Intel's, as far as seen."""
    try:
        device()
    except ProviderError:
        return False
    return True


def device() -> Any:
    """Load the plugin, once per process; return its device for this processor. ProviderError."""
    if not is_installed():
        raise ProviderError(f"provider=openvino: {MISSING}")
    _register()
    return _device()


@cache
def _register() -> None:
    import onnxruntime_ep_openvino as plugin

    try:
        onnxruntime.register_execution_provider_library(NAME, plugin.get_library_path())
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ProviderError(
            f"provider=openvino: onnxruntime {onnxruntime.__version__} cannot load the plugin: "
            f"{said(error)}; {REMEDY}"
        ) from error


@cache
def _device() -> Any:
    for found in onnxruntime.get_ep_devices():
        if found.ep_name == NAME and found.ep_metadata.get("ov_device") == "CPU":
            return found
    raise ProviderError(f"provider=openvino: the plugin does not support this processor; {REMEDY}")


def release() -> str:
    """The installed release, without loading it; "none" without the extra."""
    return metadata.version(PACKAGE) if is_installed() else "none"


def has_bf16() -> bool:
    """Whether the plugin computes in bfloat16 on this processor. ProviderError without it."""
    return "BF16" in device().ep_metadata["OPTIMIZATION_CAPABILITIES"].split()


def require_bf16() -> None:
    """Raise ProviderError unless ``has_bf16``."""
    if not has_bf16():
        raise ProviderError(
            "precision=bf16: this processor has no bfloat16 (amx_bf16 or avx512_bf16); "
            "set precision=fp32 or int8"
        )


def add_to(options: onnxruntime.SessionOptions, threads: int, *, bf16: bool) -> None:
    """Choose the plugin for a session. Its calls wait for each other.

    With one thread a call is computed by the thread that makes it, at that thread's priority: more
    streams would be threads of the plugin's own. ProviderError without the plugin, or with ``bf16``
    on a processor that lacks it.
    """
    if bf16:
        require_bf16()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        # Threads stay where the system puts them: workers would pin theirs to the same cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    options.add_provider_for_devices([device()], {"load_config": json.dumps({"CPU": settings})})
