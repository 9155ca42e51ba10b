"""``text build``: a bundle that verifies, or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_export.bundle.errors import BundleError, ParityError
from tests.full_disk import files_of_at_most
from tests.text import small
from text.__main__ import app
from text.export import build as build_module
from text.export.build import build
from text.runtime.bundle import EncoderBundle
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import GOLDEN


def test_golden_texts_have_every_length_class(bundle: Path) -> None:
    tokens = np.sort(GoldenTexts.load(bundle / GOLDEN).tokens)
    assert tokens[0] == 3
    assert small.LONGEST - 8 <= tokens[-1] <= small.LONGEST
    assert all(((tokens > n / 2) & (tokens <= n)).any() for n in (4, 8, 16, 32, 64, 128, 256))


def test_the_manifest_says_where_the_encoder_comes_from(bundle: Path) -> None:
    manifest = EncoderBundle.open(bundle).manifest
    assert manifest.languages == ["en", "de"]
    assert (manifest.lengths.trained, manifest.lengths.longest) == (64, small.LONGEST)
    assert (manifest.training.checkpoint, manifest.training.corpus) == ("checkpoint", "c0ffee")
    assert manifest.parity.cases > 15
    assert 0 < manifest.parity.max_abs_error <= 2e-6


def test_nothing_is_published_where_an_answer_differs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = build_module.golden_texts

    def off(*arguments: object) -> GoldenTexts:
        golden = made(*arguments)  # type: ignore[arg-type]
        golden.vectors[0] += 1e-5
        return golden

    monkeypatch.setattr(build_module, "golden_texts", off)
    with pytest.raises(ParityError, match=r"differs from the network's by 1.+text 0"):
        build(checkpoint, tmp_path / "out", version="v", longest=40)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_version_is_not_overwritten(bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(BundleError, match="a version is immutable"):
        build(checkpoint, bundle.parent, version=bundle.name, longest=40)


def test_the_commands_build_verify_and_describe(checkpoint: Path, tmp_path: Path) -> None:
    def run(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout.splitlines()[-1]))

    out = str(tmp_path / "out")
    built = run("build", str(checkpoint), "--out", out, "--version", "v7", "--longest", "64")
    assert built["version"] == "v7"
    path = str(built["path"])
    verified = run("verify", path)
    assert verified["cases"] == built["cases"]
    about = run("info", path)
    assert about["digest"] == EncoderBundle.open(path).digest
    refused = CliRunner().invoke(app, ["verify", str(checkpoint)])
    assert refused.exit_code == 1
    assert "is not an encoder bundle" in refused.output


@pytest.mark.parametrize("size", [64, 9000])
def test_a_bundle_that_a_full_disk_cuts_off_is_named_and_absent(
    checkpoint: Path, tmp_path: Path, size: int
) -> None:
    out = tmp_path / "encoders"
    words = ["build", str(checkpoint), "--out", str(out), "--version", "v1", "--longest", "64"]
    with files_of_at_most(size):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert f"error: {out / 'v1'}: cannot be written: File too large" in done.output
    assert not list(out.iterdir())


@pytest.mark.parametrize("longest", [8, 12])
def test_golden_texts_of_more_tokens_than_are_read_are_left_out(
    checkpoint: Path, tmp_path: Path, longest: int
) -> None:
    """Of a small vocabulary a text of four odd characters is more tokens than 8."""
    built = build(checkpoint, tmp_path, version="v1", longest=longest)
    tokens = GoldenTexts.load(built.path / GOLDEN).tokens
    assert 8 < len(tokens) < 20
    assert tokens.max() <= longest
