"""The graphs' second output is the map in float64 of PyTorch's vectors, within a stated bound."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_export.bundle.bundle import digest
from model_export.bundle.errors import BundleError, ParityError
from tests.text import small
from text.__main__ import app
from text.export.build import build
from text.runtime.bundle import EncoderBundle
from text.runtime.cache import VectorCache
from text.runtime.content import ContentMap, content_digest
from text.runtime.encoder import TextEncoder
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import CONTENT, GOLDEN, MANIFEST
from text.runtime.verify import verify

ROUNDING = 2.0**-21  # of Σ|w| + |b|: weights, products and sums in float32


def test_content_is_the_map_of_pytorchs_vectors(content_bundle: Path, content: ContentMap) -> None:
    golden = GoldenTexts.load(content_bundle / GOLDEN)
    encoder = TextEncoder.open(content_bundle)
    encoded = encoder.encode(golden.texts)
    assert golden.tokens.max() > encoder.manifest.lengths.packed  # both graphs
    exact = golden.vectors @ content.of_text.weight + content.of_text.bias
    assert golden.content is not None
    assert np.allclose(golden.content, exact, rtol=0, atol=1e-12)
    assert encoded.content is not None
    errors = np.abs(encoded.content - exact)
    assert (errors <= content.of_text.bound(2e-6)).all()
    said = encoder.manifest.content
    assert said is not None
    assert errors.max() <= said.max_abs_error * 1.0001 + 1e-12


def test_content_is_the_map_of_the_vector_beside_it(
    content_bundle: Path, content: ContentMap
) -> None:
    """Apart from the vector's own error there is float32's rounding alone."""
    encoder = TextEncoder.open(content_bundle)
    texts = [*small.WORDS, " ".join(small.WORDS * 9), "tree " * 260]
    for encoded in (encoder.encode(texts), encoder.encode(texts[-1:])):
        assert encoded.content is not None
        errors = np.abs(encoded.content - content.of_text(encoded.vectors))
        assert (errors <= content.of_text.bound(ROUNDING)).all()


def test_vectors_are_those_of_a_bundle_without_a_map(bundle: Path, content_bundle: Path) -> None:
    texts = [*small.WORDS, " ".join(small.WORDS * 5)]
    plain, mapped = TextEncoder.open(bundle), TextEncoder.open(content_bundle)
    assert (plain.encode(texts).vectors == mapped.encode(texts).vectors).all()
    assert plain.encode(texts).content is None
    assert plain.content_digest is None
    assert "content" not in json.loads((bundle / MANIFEST).read_text())


def test_the_digest_is_that_of_encoder_and_map(
    bundle: Path, content_bundle: Path, ridge_map: Path, content: ContentMap
) -> None:
    plain, mapped = EncoderBundle.open(bundle), EncoderBundle.open(content_bundle)
    assert plain.network == mapped.network  # a map does not change whose vectors they are
    assert plain.digest != mapped.digest
    encoder = TextEncoder(mapped)
    assert encoder.content_digest == content_digest(mapped.network, digest(ridge_map).sha256)
    assert content.digest == digest(ridge_map).sha256


def test_a_cached_answer_has_its_content(content_bundle: Path) -> None:
    encoder = TextEncoder.open(content_bundle, cache=VectorCache(1 << 20))
    first = encoder.encode(small.WORDS)
    again = encoder.encode([*small.WORDS[:3], "das neue Haus"])
    assert first.content is not None
    assert again.content is not None
    assert (again.content[:3] == first.content[:3]).all()
    assert (again.vectors[:3] == first.vectors[:3]).all()


def test_spans_of_a_text_are_pooled_as_without_a_map(bundle: Path, content_bundle: Path) -> None:
    text = "the tree of house"
    plain, mapped = (TextEncoder.open(b).chunks(text, [(0, 8)]) for b in (bundle, content_bundle))
    assert (plain.vectors == mapped.vectors).all()


@pytest.fixture
def copy(content_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(content_bundle, tmp_path / content_bundle.name))


def put(bundle: Path, name: str) -> None:
    """List a file as it is now."""
    file = bundle / MANIFEST
    values = json.loads(file.read_text())
    values["files"][name] = digest(bundle / name).model_dump()
    file.write_text(json.dumps(values))


def test_content_beyond_its_bound_is_refused(copy: Path, content: ContentMap) -> None:
    golden = GoldenTexts.load(copy / GOLDEN)
    assert golden.content is not None
    golden.content[2, 1] += 3 * content.of_text.bound(2e-6)[1]
    golden.save(copy / GOLDEN)
    put(copy, GOLDEN)
    with pytest.raises(ParityError, match="number 1 of golden text 2's content differs"):
        verify(copy)
    replace(golden, content=None).save(copy / GOLDEN)
    put(copy, GOLDEN)
    with pytest.raises(BundleError, match="no content of the golden texts"):
        verify(copy)


def test_another_map_than_the_manifests_is_refused(copy: Path, content: ContentMap) -> None:
    (copy / CONTENT).write_bytes(replace(content, mean=content.mean + 1).encoded())
    put(copy, CONTENT)
    with pytest.raises(BundleError, match=r"content.npz: not the map of the manifest"):
        TextEncoder.open(copy)


def test_a_map_of_another_encoder_is_refused(ridge_map: Path, tmp_path: Path) -> None:
    other = small.checkpoint(tmp_path / "other", "qk_norm")
    with pytest.raises(BundleError, match="fitted to the vectors of another encoder"):
        build(other, tmp_path / "out", version="v", longest=40, content=ridge_map)
    assert not (tmp_path / "out").exists()


def test_build_and_info_say_the_digest(checkpoint: Path, ridge_map: Path, tmp_path: Path) -> None:
    words = ["build", str(checkpoint), "--out", str(tmp_path), "--longest", "40", "--json"]
    done = CliRunner().invoke(app, [*words, "--content", str(ridge_map)])
    assert done.exit_code == 0, done.output
    built = json.loads(done.stdout.splitlines()[-1])
    shown = CliRunner().invoke(app, ["info", built["path"]])
    assert built["content"]["digest"] in shown.output
