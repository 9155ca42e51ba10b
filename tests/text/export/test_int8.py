"""int8: an answer that company does not change, published through a gate alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.bundle.errors import BundleError, GateError
from text.corpus.corpus import Corpus
from text.export import gate as gate_module
from text.export.build import build
from text.export.int8 import Int8
from text.export.quantised import Range
from text.runtime.encoder import TextEncoder
from text.runtime.manifest import INT8
from text.runtime.verify import verify


@pytest.fixture(scope="module")
def quick(checkpoint: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = Int8(corpus, kept=("0.down",), force=True)
    out = tmp_path_factory.mktemp("int8")
    return build(checkpoint, out, version="v1", longest=64, int8=wanted).path


def test_the_gate_is_recorded_and_the_graph_verified(quick: Path) -> None:
    bundle, _ = verify(quick)
    gate = bundle.manifest.gates["int8"]
    assert INT8 in bundle.manifest.graphs
    assert gate.kept == ["0.down"]
    assert gate.texts > 10
    assert 0 < gate.overlap <= 1
    assert 0 < gate.max_abs_error < 0.2
    assert gate.passed != gate.forced


def test_int8_vectors_do_not_depend_on_the_company(quick: Path) -> None:
    encoder = TextEncoder.open(quick, precision="int8")
    texts = ["the tree", "das Haus und der Baum", "niño", "x" * 40]
    beside = encoder.encode(texts).vectors
    alone = np.concatenate([encoder.encode([text]).vectors for text in texts])
    assert np.abs(beside - alone).max() <= 2e-6


def test_int8_is_refused_with_the_worst_products(
    checkpoint: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "LEAST_OVERLAP", 1.01)
    monkeypatch.setattr(gate_module, "MOST_TEXTS", 40)
    monkeypatch.setattr(gate_module, "MOST_PAIRS", 9)
    with pytest.raises(GateError, match=r"overlap of the 10 nearest .+ the worst: \d\.\w+ 0|1\."):
        build(checkpoint, tmp_path / "out", version="v", longest=40, int8=Int8(corpus))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_product_to_keep_that_there_is_not_is_named(
    checkpoint: Path, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"--keep 9\.up: the products are 0\.out, 0\.gate"):
        build(checkpoint, tmp_path, version="v", longest=40, int8=Int8(corpus, ("9.up",)))


def test_a_bundle_without_int8_says_so(bundle: Path) -> None:
    with pytest.raises(BundleError, match="holds no int8 graph"):
        TextEncoder.open(bundle, precision="int8")


def test_a_range_leaves_out_a_few_far_numbers() -> None:
    random = np.random.default_rng(0)
    sample = random.normal(size=500_000).astype(np.float32)
    whole = Range.between(float(sample.min()), float(sample.max()))
    assert 0.8 * whole.scale < Range.of(sample).scale <= whole.scale
    assert np.sqrt(np.square(whole.error(sample)).mean()) < 0.02
    sample[0] = 40
    assert Range.of(sample).scale < 0.8 * 44 / 255
