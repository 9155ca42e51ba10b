"""Runs a ranker at a few padded sizes: on a GPU, its inputs bound to device memory, or on OpenVINO.

For each new shape a GPU session searches for its kernels and OpenVINO compiles its own; buckets
bound their number. Padding is exact: an all-zero history row has key and attention zero and adds
nothing; padded candidates are cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_export.bundle.sessions import Provider, open_session

SMALLEST = 16
LEAST_LIST = 32  # candidates on OpenVINO: 16 take as long
MOST_FIXED = 512  # candidates with sessions of their own; each holds the weights


def bucket(size: int, least: int = SMALLEST) -> int:
    """The next power of two, at least ``least``; 0 stays 0."""
    return max(least, 1 << (size - 1).bit_length()) if size else 0


def buckets(most: int) -> list[int]:
    """Every bucket of sizes up to ``most``, 0 included."""
    return sorted({bucket(size) for size in (0, most, *(1 << n for n in range(most.bit_length())))})


class SessionPool:
    """Sessions of one graph, of which each runs one call at a time; calls take them in turns."""

    def __init__(self, sessions: Sequence[onnxruntime.InferenceSession]) -> None:
        self._first, self._free = sessions[0], SimpleQueue[onnxruntime.InferenceSession]()
        for session in sessions:
            self._free.put(session)

    def get_inputs(self) -> list[Any]:
        return list(self._first.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self._first.get_outputs())

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        session = self._free.get()
        try:
            answers: list[NDArray[Any]] = session.run(outputs, feeds)
        finally:
            self._free.put(session)
        return answers


class SizedPools:
    """A pool of sessions for each number of candidates, opened when such a list first comes.

    OpenVINO computes a layer's element-wise steps in one pass if it can prove that their operands
    are of one size. Longer lists than MOST_FIXED share a session without a size.
    """

    def __init__(self, opened: Callable[[int | None], SessionPool]) -> None:
        """``opened``: opens a pool for this number of candidates, or for any."""
        self._opened, self._any, self._opening = opened, opened(None), Lock()
        self._pools: dict[int, SessionPool] = {}

    def get_inputs(self) -> list[Any]:
        return self._any.get_inputs()

    def get_outputs(self) -> list[Any]:
        return self._any.get_outputs()

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        size = len(feeds["vector"])
        if size > MOST_FIXED:
            return self._any.run(outputs, feeds)
        pool = self._pools.get(size)
        if pool is None:
            with self._opening:
                pool = self._pools.get(size)
                if pool is None:
                    pool = self._pools[size] = self._opened(size)
        return pool.run(outputs, feeds)


class BucketedSession:
    """A session that pads every symbolic dimension to its bucket."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession | SizedPools,
        device: str | None = None,
        least: Mapping[str, int] | None = None,
    ) -> None:
        """``device``: where to bind inputs and outputs, which pools do not do. ``least``: smallest
        bucket of a dimension, if it is not SMALLEST."""
        self._session, self._device, self._least = session, device, least or {}
        self._shapes = {value.name: value.shape for value in session.get_inputs()}
        self._cut = {value.name: value.shape for value in session.get_outputs()}

    def get_inputs(self) -> list[Any]:
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self._session.get_outputs())

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        sizes = {
            dimension: size
            for name, array in feeds.items()
            for dimension, size in zip(self._shapes[name], array.shape, strict=True)
            if isinstance(dimension, str)
        }
        padded = {name: self._padded(name, array) for name, array in feeds.items()}
        return [
            answer[tuple(slice(sizes.get(d)) for d in self._cut[name])]
            for name, answer in zip(outputs, self._run(outputs, padded), strict=True)
        ]

    def _run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        session = self._session
        if isinstance(session, SizedPools):
            return session.run(outputs, feeds)
        binding = session.io_binding()
        for name, array in feeds.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device)
            binding.bind_ortvalue_input(name, value)
        for output in outputs:
            binding.bind_output(output, self._device)
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()]

    def _padded(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        shape = tuple(
            bucket(size, self._least.get(dimension, SMALLEST))
            if isinstance(dimension, str)
            else size
            for dimension, size in zip(self._shapes[name], array.shape, strict=True)
        )
        if shape == array.shape:
            return np.ascontiguousarray(array)
        padded = np.zeros(shape, array.dtype)
        padded[tuple(map(slice, array.shape))] = array
        return padded


Session: TypeAlias = onnxruntime.InferenceSession | BucketedSession


def open_ranker(
    graph: Path,
    threads: int,
    where: Provider,
    callers: int,
    *,
    tf32: bool = False,
    bf16: bool = False,
) -> Session:
    """Open a ranker for ``callers`` threads at once; padded but for the CPU. Raises BundleError."""
    if where == "openvino":

        def opened(size: int | None) -> SessionPool:
            sizes = {} if size is None else {"C": size}
            count = 1 if size is None else callers
            options: dict[str, Any] = {"bf16": bf16, "sizes": sizes}
            return SessionPool(
                [open_session(graph, threads, where, **options) for _ in range(count)]
            )

        return BucketedSession(SizedPools(opened), least={"C": LEAST_LIST})
    session = open_session(graph, threads, where, tf32=tf32)
    return BucketedSession(session, "cuda") if where == "cuda" else session
