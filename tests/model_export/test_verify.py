"""``verify`` trusts nothing and needs neither torch nor onnx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from model_export.bundle import Bundle, digest
from model_export.errors import BundleError, ParityError
from model_export.folded import FoldedNetwork
from model_export.manifest import GOLDEN, MANIFEST
from model_export.random_network import random_network
from model_export.ranker import ranker
from model_export.towers import history_tower
from model_export.verify import verify
from tests.model_export.schemas import MANY_CONTEXTS, SMALL, SMALL_SIZES
from training.qin import QIN

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "safetensors", "pandas"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocked())
from model_export.__main__ import app
app(["verify", sys.argv[1], "--json"])
"""


def redigest(bundle: Bundle) -> None:
    """Make the manifest agree with whatever the files hold now."""
    file = bundle.path / MANIFEST
    content = orjson.loads(file.read_bytes())
    content["files"] = {n: digest(bundle.path / n).model_dump() for n in content["files"]}
    file.write_bytes(orjson.dumps(content))


def test_a_bundle_is_verified_without_torch_or_onnx(bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(bundle.path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = orjson.loads(done.stdout)
    assert answer["version"] == "small-1"
    assert answer["cases"] == len(bundle.golden().probability)
    assert answer["max_abs_error"] == pytest.approx(bundle.manifest.parity.max_abs_error)


def test_golden_answers_that_differ_are_refused_naming_the_worst(copied: Bundle) -> None:
    file = copied.path / GOLDEN
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["probability"][-1] += 1e-4
    np.savez(file, **arrays)
    redigest(copied)
    with pytest.raises(ParityError, match=r"differs .* by .* worst case: views_level beyond"):
        verify(copied.path)


def test_other_weights_in_the_same_graph_are_refused(copied: Bundle) -> None:
    other = FoldedNetwork.of(random_network(SMALL, SMALL_SIZES, seed=2))
    ranker(other).save(copied.path)
    with pytest.raises(BundleError, match="sha-256"):
        verify(copied.path)
    redigest(copied)
    with pytest.raises(ParityError):
        verify(copied.path)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (ranker, "ranker.onnx: does not fit the manifest's schema: campaign is not known; "),
        (history_tower, r"history_tower\.onnx: .*rows is \('tensor\(float\)', \['L', 28\]\) and"),
    ],
)
def test_a_graph_of_another_schema_is_refused_naming_the_inputs(
    copied: Bundle, graph, message: str
) -> None:
    other = FoldedNetwork.of(random_network(MANY_CONTEXTS, SMALL_SIZES))
    graph(other).save(copied.path)
    redigest(copied)
    with pytest.raises(BundleError, match=message):
        verify(copied.path)


def test_golden_items_of_another_layout_are_refused(copied: Bundle) -> None:
    file = copied.path / GOLDEN
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["items"] = np.zeros(len(arrays["items"]), MANY_CONTEXTS.item_dtype)
    np.savez(file, **arrays)
    redigest(copied)
    with pytest.raises(BundleError, match=r"golden\.npz: items: .* does not fit"):
        verify(copied.path)


def test_a_moved_bundle_still_verifies(copied: Bundle, network: QIN, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = copied.path.rename(elsewhere / copied.version)
    assert verify(moved)[1].max_abs_error < 1e-5
