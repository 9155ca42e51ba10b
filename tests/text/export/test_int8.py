"""int8: an answer that company does not change, published through a gate alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.bundle.errors import BundleError, GateError
from text.corpus.corpus import Corpus
from text.encoder.checkpoint import load
from text.export import gate as gate_module
from text.export.build import build
from text.export.folded import FoldedEncoder
from text.export.int8 import Int8
from text.export.quantised import Observed, Range
from text.runtime.cache import VectorCache
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


def test_a_cache_keeps_vectors_of_each_precision_apart(quick: Path) -> None:
    cache = VectorCache(1 << 20)
    exact, other = (
        TextEncoder.open(quick, precision=precision, cache=cache).encode(["das Haus"]).vectors
        for precision in ("fp32", "int8")
    )
    assert np.abs(exact - other).max() > 1e-5
    assert len(cache) == 2


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


def test_balanced_channels_change_no_answer_and_have_one_range(checkpoint: Path) -> None:
    encoder = FoldedEncoder.of(load(checkpoint).network)
    random = np.random.default_rng(0)
    rows = {f"{n}.gated": random.normal(size=(50, 16)).astype(np.float32) for n in range(2)}
    for x in rows.values():
        x[:, 3] *= 100
    seen = Observed(rows, {name: np.abs(x).max(0) for name, x in rows.items()})
    balanced = seen.balanced(encoder, ["1.down"])
    first, second = zip(encoder.layers, balanced.layers, strict=True)
    x, gate = random.normal(size=(5, 24)), random.normal(size=(5, 16))
    for layer, other in (first, second):
        wanted = layer.down(gate * layer.up(x))
        assert np.allclose(other.down(gate * other.up(x)), wanted, rtol=1e-12)
    assert (second[0].up.weight == second[1].up.weight).all()  # of a product kept in float32
    assert not np.allclose(first[0].up.weight, first[1].up.weight)
    scaled = seen.ranges(encoder, ["1.down"])
    assert scaled["0.gated"].scale < scaled["1.gated"].scale / 50
