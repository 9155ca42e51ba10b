"""Builds onnxruntime sessions, and makes sure that they run where they were asked to.

``get_available_providers`` lists what was built in, and a session may fall back to the CPU without
a word; so the provider in force is read from the session itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from model_export.bundle.errors import BundleError, ProviderError

Provider = Literal["cpu", "cuda"]
ProviderChoice = Literal["cpu", "cuda", "auto"]
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's graphs run, and why not elsewhere."""

    provider: Provider
    fallback: str | None = None  # why ``auto`` did not take the GPU


def open_session(
    graph: Path, threads: int, provider: Provider = "cpu", *, tf32: bool = False
) -> onnxruntime.InferenceSession:
    """BundleError if the file cannot be loaded; ProviderError if it would run elsewhere."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # fatal ones: errors are raised, and told once
    name = PROVIDERS[provider]
    wanted: list[Any] = [name]
    if provider == "cuda":
        if name not in onnxruntime.get_available_providers():
            raise ProviderError(
                f"provider=cuda: onnxruntime {onnxruntime.__version__} is built without CUDA; "
                "install onnxruntime-gpu in its place, or set provider=cpu"
            )
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        settings = {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}
        wanted = [(name, settings)]
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=wanted)
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        if provider == "cuda":
            raise ProviderError(
                f"provider=cuda: {graph} cannot run there: {error}; "
                "check the driver with nvidia-smi, or set provider=cpu"
            ) from error
        raise BundleError(
            f"{graph}: onnxruntime {onnxruntime.__version__} cannot load it: {error}; "
            "rebuild the bundle with `python -m model_export build`"
        ) from error
    in_force = session.get_providers()[0]
    if in_force != name:
        raise ProviderError(
            f"provider={provider}: onnxruntime put {graph.name} on {in_force} instead; "
            "check the driver with nvidia-smi, or set provider=cpu"
        )
    return session


def place(graph: Path, choice: ProviderChoice | Placement, threads: int) -> Placement:
    """Where graphs will run: as chosen, or with ``auto`` on the GPU if a session starts there."""
    if isinstance(choice, Placement):
        return choice
    if choice != "auto":
        return Placement(choice)
    try:
        open_session(graph, threads, "cuda")
    except ProviderError as error:
        return Placement("cpu", fallback=str(error))
    return Placement("cuda")
