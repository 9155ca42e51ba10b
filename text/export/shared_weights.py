"""Saves several graphs over one file of weights: those of the same name are stored once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from model_export.graphs.onnx_writer import PAGE, GraphWriter


def save(graphs: Sequence[GraphWriter], folder: Path, file: str) -> None:
    """Write ``NAME.onnx`` of each graph, and ``file`` with all weights; check the models."""
    offsets: dict[str, int] = {}
    stored: dict[str, NDArray[Any]] = {}
    with (folder / file).open("wb") as stream:
        for graph in graphs:
            model = graph.model()
            for tensor in model.graph.initializer:
                if tensor.data_location != onnx.TensorProto.EXTERNAL:
                    continue
                array = graph.constants[tensor.name]
                if tensor.name not in offsets:
                    offsets[tensor.name], stored[tensor.name] = stream.tell(), array
                    stream.write(array.data)
                    stream.write(bytes(-array.nbytes % PAGE))
                elif not np.array_equal(stored[tensor.name], array):
                    raise ValueError(f"two weights are called {tensor.name}")
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = file
                    elif entry.key == "offset":
                        entry.value = str(offsets[tensor.name])
            (folder / f"{graph.name}.onnx").write_bytes(model.SerializeToString())
    for graph in graphs:
        onnx.checker.check_model(str(folder / f"{graph.name}.onnx"), full_check=True)
