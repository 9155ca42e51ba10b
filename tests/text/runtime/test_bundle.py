"""A damaged, altered or foreign bundle is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from model_export.bundle.bundle import digest
from model_export.bundle.errors import BundleError, ParityError
from model_export.bundle.signature import PublicKeys, sign
from text.runtime.bundle import EncoderBundle
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import GOLDEN, MANIFEST
from text.runtime.verify import verify


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / bundle.name))


def edit(bundle: Path, **values: object) -> None:
    file = bundle / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.weights", "tokenizer.json", GOLDEN])
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: sha-256.+text build"):
        EncoderBundle.open(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 9}, "format: 9, and this release reads 1"),
        ({"surprise": 1}, "surprise: unknown name"),
        ({"files": {}}, "encoder.onnx, encoder.weights, tokenizer.json, golden.npz not listed"),
        ({"version": "v9"}, "'v9' in a folder named 'v1'"),
        ({"shape": None}, "shape: not a mapping"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    copy: Path, values: dict[str, object], message: str
) -> None:
    edit(copy, **values)
    with pytest.raises(BundleError, match=message):
        EncoderBundle.open(copy)


def test_a_bundle_of_another_kind_and_no_bundle_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not an encoder bundle"):
        EncoderBundle.open(tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": 2}')
    with pytest.raises(BundleError, match="not of an encoder bundle"):
        EncoderBundle.open(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        EncoderBundle.open(tmp_path)


def test_a_folder_of_bundles_and_a_model_s_bundle_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / MANIFEST).write_text('{"format": 3, "feature_schema": {}}')
    with pytest.raises(BundleError, match=f"a folder of bundles; name one .* {tmp_path / 'a'}$"):
        EncoderBundle.open(tmp_path)
    with pytest.raises(BundleError, match="not of an encoder bundle, but of a model's; copy"):
        EncoderBundle.open(tmp_path / "a")


def test_an_answer_beyond_the_tolerance_is_refused(copy: Path) -> None:
    golden = GoldenTexts.load(copy / GOLDEN)
    golden.vectors[3] += 5e-6
    golden.save(copy / GOLDEN)
    files = json.loads((copy / MANIFEST).read_text())["files"]
    edit(copy, files=files | {GOLDEN: digest(copy / GOLDEN).model_dump()})
    with pytest.raises(ParityError, match=r"differs from the network's by 5.+; worst case: text 3"):
        verify(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": np.full((3, 24), np.nan)},
        {"tokens": np.array([], np.int64)},
        {"offsets": np.array([0, 1, 2, 99])},
        {"text": np.array([255, 254, 253], np.uint8)},
    ],
)
def test_damaged_golden_answers_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    arrays = {
        "text": np.frombuffer(b"abc", np.uint8),
        "offsets": np.array([0, 1, 2, 3]),
        "tokens": np.array([3, 3, 3]),
        "vectors": np.ones((3, 24)),
    }
    np.savez(tmp_path / "good.npz", **arrays)
    assert GoldenTexts.load(tmp_path / "good.npz").texts == ["a", "b", "c"]
    np.savez(tmp_path / "bad.npz", **(arrays | change))
    with pytest.raises(BundleError, match=r"bad\.npz: golden answers cannot be read"):
        GoldenTexts.load(tmp_path / "bad.npz")


def test_a_signature_is_required_where_keys_are_given(copy: Path, tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    keys = PublicKeys.read(tmp_path / "key.pub")
    with pytest.raises(BundleError, match="a signature is required"):
        verify(copy, keys)
    sign(copy, tmp_path / "key.pem")
    verify(copy, keys)
    edit(copy, languages=["xx"])
    with pytest.raises(BundleError, match="not a signature of"):
        verify(copy, keys)
