"""Messages are ours; a library's words are left out, or quoted as its own on one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, said
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.signature import PublicKeys, sign


@pytest.mark.parametrize("kind", ["text", "damaged", "encrypted"])
def test_a_key_that_cannot_be_read_is_refused_in_our_words(kind: str, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    encrypted = BestAvailableEncryption(b"secret")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted)
    contents = {"text": b"no key", "damaged": pem.replace(b"M", b"\xff"), "encrypted": pem}
    key.write_bytes(contents[kind])
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(BundleError) as refused:
        sign(tmp_path, key)
    assert str(refused.value) == (
        f"{key}: not an unencrypted PEM private key (openssl genpkey -algorithm ed25519)"
    )


def test_a_public_key_that_cannot_be_read_is_refused_in_our_words(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(BundleError) as refused:
        PublicKeys.read(key)
    assert str(refused.value) == f"{key}: not a PEM public key (openssl pkey -pubout)"


def test_onnxruntimes_words_are_quoted_on_one_line(copied: Bundle) -> None:
    copied.graph("ranker").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r'cannot load it: \w+ "[^"]+"; rebuild the bundle'):
        FoldedModel(copied)


def test_a_quotation_is_one_line_of_bounded_length() -> None:
    assert said(RuntimeError("first\n  second")) == 'RuntimeError "first second"'
    assert len(said(RuntimeError("x" * 10_000))) < 330
    assert said(MemoryError()) == "MemoryError"
