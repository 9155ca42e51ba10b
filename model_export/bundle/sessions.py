"""Opens onnxruntime sessions and verifies their execution provider.

``get_available_providers`` lists the providers built in, and a session may silently fall back to
the CPU; so the provider in use is read from the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from model_export.bundle import openvino
from model_export.bundle.errors import BundleError, ProviderError, said

Provider = Literal["cpu", "cuda", "openvino"]
ProviderChoice = Literal["cpu", "cuda", "openvino", "auto"]
REBUILD = "rebuild the bundle with `python -m model_export build`"
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": openvino.NAME,
}


@dataclass(frozen=True, slots=True)
class Placement:
    """The execution provider of a model's ranker."""

    provider: Provider
    fallback: str | None = None  # why ``auto`` did not choose the GPU
    reason: str | None = None  # of the precision and the provider


def open_session(
    graph: Path,
    threads: int,
    provider: Provider = "cpu",
    *,
    tf32: bool = False,
    bf16: bool = False,
    sizes: Mapping[str, int] | None = None,
    remedy: str = REBUILD,
) -> onnxruntime.InferenceSession:
    """Open a session. Raises BundleError, or ProviderError if it would run elsewhere.

    ``tf32`` is for cuda, ``bf16`` for openvino. ``sizes``: of symbolic dimensions, by name.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for dimension, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(dimension, size)
    options.log_severity_level = 4  # fatal: errors are raised instead
    name = PROVIDERS[provider]
    wanted: list[Any] | None = [name]
    if provider == "cuda":
        if name not in onnxruntime.get_available_providers():
            raise ProviderError(
                f"provider=cuda: onnxruntime {onnxruntime.__version__} is built without CUDA; "
                "install onnxruntime-gpu in its place, or set provider=cpu"
            )
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        settings = {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}
        wanted = [(name, settings)]
    if provider == "openvino":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        openvino.add_to(options, threads, bf16=bf16)
        wanted = None  # else onnxruntime ignores the device in ``options``
    check = "check the driver with nvidia-smi, or set provider=cpu"
    if provider != "cuda":
        check = openvino.REMEDY
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=wanted)
    except Exception as error:  # onnxruntime's exceptions have no common base
        if provider != "cpu":
            raise ProviderError(
                f"provider={provider}: {graph} cannot run there: {said(error)}; {check}"
            ) from error
        raise BundleError(
            f"{graph}: onnxruntime {onnxruntime.__version__} cannot load it: {said(error)}; "
            f"{remedy}"
        ) from error
    in_force = session.get_providers()[0]
    if in_force != name:
        raise ProviderError(
            f"provider={provider}: onnxruntime put {graph.name} on {in_force} instead; {check}"
        )
    return session


def place(graph: Path, choice: ProviderChoice | Placement, threads: int) -> Placement:
    """Resolve ``auto``: the GPU if a session opens there, else the CPU."""
    if isinstance(choice, Placement):
        return choice
    if choice != "auto":
        return Placement(choice)
    try:
        open_session(graph, threads, "cuda")
    except ProviderError as error:
        return Placement("cpu", fallback=str(error))
    return Placement("cuda")
