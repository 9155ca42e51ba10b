"""Requests as ``tritonclient`` builds them, and what ``/v1/score`` says to the same question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray

from feature_store.contract import Ids

MODEL = "qin"


@contextmanager
def triton_client(port: int) -> Iterator[triton.InferenceServerClient]:
    with closing(triton.InferenceServerClient(f"127.0.0.1:{port}")) as client:
        yield client


def tensor(name: str, values: Ids, *, binary: bool) -> triton.InferInput:
    """One input of a request."""
    values = np.ascontiguousarray(values, np.int64)
    made = triton.InferInput(name, list(values.shape), "INT64")
    return made.set_data_from_numpy(values, binary_data=binary)


def number_tensor(name: str, value: float, *, binary: bool) -> triton.InferInput:
    """A numeric request feature."""
    made = triton.InferInput(name, [1], "FP32")
    return made.set_data_from_numpy(np.array([value], np.float32), binary_data=binary)


def output(name: str, *, binary: bool) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question in both protocols."""

    user: int
    candidates: Ids
    history: Ids | None = None  # oldest first
    context: Mapping[str, Ids] = field(default_factory=dict)

    def inputs(self, *, binary: set[str] | None = None) -> list[triton.InferInput]:
        """``binary``: the names that go as blobs; None: all of them."""
        values = {"user_id": np.array([self.user]), "item_id": self.candidates, **self.context}
        if self.history is not None:
            values["history"] = self.history
        return [
            tensor(name, one, binary=binary is None or name in binary)
            for name, one in values.items()
        ]

    def body(self) -> dict[str, Any]:
        """Of ``POST /v1/score``."""
        body: dict[str, Any] = {"user_id": self.user, "candidates": self.candidates.tolist()}
        if self.context:
            body["context"] = {name: values.tolist() for name, values in self.context.items()}
        if self.history is not None:
            body["history"] = self.history.tolist()
        return body

    def scores(self, client: httpx.Client) -> NDArray[np.float32]:
        """What ``/v1/score`` answers; 0 for null."""
        answer = client.post("/v1/score", json=self.body())
        assert answer.status_code == 200, answer.text
        return np.array([score or 0.0 for score in answer.json()["scores"]], np.float32)


def same_bits(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert got.dtype == np.float32
    assert got.tobytes() == expected.tobytes()
