"""Runs a ranker on a GPU at a few padded sizes, its inputs bound to device memory.

For each new shape a GPU session searches for its kernels; buckets bound their number. Padding is
exact: an all-zero history row has key and attention zero and adds nothing; padded candidates are
cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

SMALLEST = 16


def bucket(size: int) -> int:
    """The next power of two, at least 16; 0 stays 0."""
    return max(SMALLEST, 1 << (size - 1).bit_length()) if size else 0


class BucketedSession:
    """A session that pads every symbolic dimension to its bucket."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        self._session, self._device = session, device
        self._shapes = {value.name: value.shape for value in session.get_inputs()}

    def get_inputs(self) -> list[Any]:
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self._session.get_outputs())

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        sizes: dict[str, int] = {}
        binding = self._session.io_binding()
        for name, array in feeds.items():
            sizes |= {
                dimension: size
                for dimension, size in zip(self._shapes[name], array.shape, strict=True)
                if isinstance(dimension, str)
            }
            value = onnxruntime.OrtValue.ortvalue_from_numpy(
                self._padded(name, array), self._device
            )
            binding.bind_ortvalue_input(name, value)
        for output in outputs:
            binding.bind_output(output, self._device)
        self._session.run_with_iobinding(binding)
        shapes = {value.name: value.shape for value in self._session.get_outputs()}
        return [
            value.numpy()[tuple(slice(sizes.get(d)) for d in shapes[name])]
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        ]

    def _padded(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        padding = [
            (0, bucket(size) - size if isinstance(dimension, str) else 0)
            for dimension, size in zip(self._shapes[name], array.shape, strict=True)
        ]
        if not any(after for _, after in padding):
            return np.ascontiguousarray(array)
        return np.pad(array, padding)
