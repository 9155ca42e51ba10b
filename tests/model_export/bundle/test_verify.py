"""``verify`` trusts nothing and needs neither torch nor onnx."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from model_export.bundle.bundle import Bundle, digest
from model_export.bundle.errors import BundleError, ParityError
from model_export.bundle.manifest import GOLDEN, MANIFEST
from model_export.bundle.verify import verify
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.ranker import ranker
from model_export.graphs.towers import history_tower
from model_export.quality.random_network import random_network
from tests.model_export.schemas import MANY_CONTEXTS, SMALL, SMALL_SIZES
from tests.service import unprivileged
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
        (ranker, "ranker.onnx: does not fit the manifest's schema: campaign is unknown; "),
        (
            history_tower,
            r"history_tower\.onnx: .*rows is \('tensor\(float\)', \['L', 28\]\) instead of",
        ),
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


def change_golden(bundle: Bundle, change: Callable[[dict[str, NDArray[Any]]], object]) -> None:
    """The golden answers with one thing changed, and a manifest that knows of it."""
    file = bundle.path / GOLDEN
    with np.load(file) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(file, **arrays)
    redigest(bundle)


def cut(arrays: dict[str, NDArray[Any]], requests: int) -> None:
    """Only the first ``requests``, consistent in itself."""
    ends = {kind: int(arrays[f"{kind}_offsets"][requests]) for kind in ("history", "candidate")}
    for kind in ends:
        arrays[f"{kind}_offsets"] = arrays[f"{kind}_offsets"][: requests + 1]
    arrays["names"] = arrays["names"][:requests]
    arrays["history"] = arrays["history"][: ends["history"]]
    for name in ("candidates", "context", "probability", "bound"):
        arrays[name] = arrays[name][: ends["candidate"]]


def all_empty(arrays: dict[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        arrays[name] = array[:0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (all_empty, "probability: 0 golden answers"),
        (lambda a: cut(a, 0), "probability: 0 golden answers"),
        (lambda a: cut(a, 3), r"probability: 48 golden answers, and the manifest says \d+ "),
        (lambda a: a.update(context=a["context"][:, :1]), "context: 1 columns, and the manifest"),
        (lambda a: a.update(context=a["context"][:, 0]), "context: unexpected 1-dimensional int32"),
        (lambda a: a.update(candidates=a["candidates"][1:]), r"candidates: \d+ rows for \d+ "),
        (
            lambda a: a.update(names=a["names"][1:]),
            r"history_offsets: \d+ offsets for \d+ requests",
        ),
        (lambda a: a["history_offsets"].__setitem__(0, 1), r"history_offsets: 1 to \d+, not 0"),
        (lambda a: a["history_offsets"].__setitem__(2, 10**6), r"history_offsets: request 2 has -"),
        (lambda a: a["candidate_offsets"].__setitem__(1, 0), "request 0 has 0 items"),
        (lambda a: a["candidates"].__setitem__(5, 10**6), "candidate 5: position 1000000 of "),
        (lambda a: a["history"].__setitem__(5, -1), "history 5: position -1 of "),
    ],
)
def test_golden_answers_that_prove_less_than_they_say_are_refused(
    copied: Bundle, change: Callable[[dict[str, NDArray[Any]]], object], message: str
) -> None:
    change_golden(copied, change)
    with pytest.raises(BundleError, match=rf"golden\.npz: .*{message}.*; .*rebuild"):
        verify(copied.path)


def test_graphs_with_a_smaller_table_than_the_manifests_are_refused_in_one_line(
    copied: Bundle,
) -> None:
    """onnxruntime finds this only when it runs."""
    file = copied.path / MANIFEST
    content = orjson.loads(file.read_bytes())
    content["feature_schema"]["context"][0]["vocabulary"] += 1
    file.write_bytes(orjson.dumps(content))
    command = [sys.executable, "-m", "model_export", "verify", str(copied.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "mine: its graphs fail on the golden requests" in line
    assert line.endswith("`python -m model_export build`")


def test_a_moved_bundle_still_verifies(copied: Bundle, network: QIN, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = copied.path.rename(elsewhere / copied.version)
    assert verify(moved)[1].max_abs_error < 1e-5


@pytest.mark.parametrize("name", [MANIFEST, GOLDEN, "ranker.onnx"])
def test_a_file_that_the_user_may_not_read_is_one_line_with_the_remedy(
    bundle: Bundle, name: str
) -> None:
    try:
        under = unprivileged.under()
    except unprivileged.Cannot as error:
        pytest.skip(str(error))
    # Not below tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = shutil.copytree(bundle.path, Path(folder) / bundle.version)
        copy.chmod(0o755)
        (copy / name).chmod(0)
        done = subprocess.run(
            [*under, sys.executable, "-m", "model_export", "verify", str(copy)],
            env={**os.environ, "PYTHONPATH": unprivileged.LIBRARIES, "HOME": folder},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {copy / name}: cannot be opened: Permission denied; let this user read it"
    )
