"""Bundles of earlier formats: read, and written where nothing more is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import orjson
import pytest

from model_export.build import build
from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import PLAIN_FORMAT
from model_export.bundle.verify import verify
from model_export.quality.random_network import random_network
from tests.model_export.schemas import SMALL
from training.qin import QINSizes

EARLIER = Path(__file__).parents[1] / "golden"  # built by the releases of these formats


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network of format-2, built now."""
    network = random_network(SMALL, QINSizes(attention_width=8, layers=2, rows=2), seed=1)
    return build(network, tmp_path_factory.mktemp("models"), version="format-2")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_bundles_of_every_format_are_verified(number: int) -> None:
    bundle, _ = verify(EARLIER / f"format-{number}")
    assert bundle.manifest.format == number


def test_a_plain_network_is_written_in_the_plain_format(now: Bundle) -> None:
    assert now.manifest.format == PLAIN_FORMAT == 2
    then = orjson.loads((EARLIER / "format-2" / "manifest.json").read_bytes())
    written = orjson.loads((now.path / "manifest.json").read_bytes())
    for kind in ("onnx", "weights"):  # listed, and not looked at by earlier releases
        del written["files"][f"ranker.rows.{kind}"]
    assert _fields(written) == _fields(then)
    assert written["multiply_adds"] == then["multiply_adds"]


def test_the_graphs_of_a_plain_network_are_those_of_before(now: Bundle) -> None:
    """All but the weights, whose last bit depends on the processor."""
    for name in now.manifest.graphs:
        graphs = [
            onnx.load(folder / f"{name}.onnx", load_external_data=False)
            for folder in (EARLIER / "format-2", now.path)
        ]
        for graph in graphs:
            for tensor in graph.graph.initializer:
                tensor.ClearField("raw_data")
        assert graphs[0] == graphs[1], name


def _fields(content: Any) -> Any:
    """The names at every level of a JSON document."""
    if isinstance(content, dict):
        return {name: _fields(value) for name, value in content.items()}
    return [_fields(value) for value in content] if isinstance(content, list) else None
