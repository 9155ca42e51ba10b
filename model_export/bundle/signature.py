"""Signs bundles and verifies signatures: Ed25519 over the manifest, which has all files' digests.

openssl genpkey -algorithm ed25519 -out publisher.pem      keep it where bundles are built
openssl pkey -in publisher.pem -pubout -out publisher.pub  give it to every service
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST, SIGNATURE

SIGN = "sign it with `python -m model_export sign BUNDLE --key PRIVATE.pem`"
BLOCK = re.compile(rb"-----BEGIN [^-]+-----.+?-----END [^-]+-----", re.DOTALL)
MOST_BYTES = 1024  # of a signature file; ours has 89


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """Accepted keys; several allow a key to be rotated."""

    keys: tuple[Ed25519PublicKey, ...]

    @classmethod
    def read(cls, path: Path) -> PublicKeys:
        """Read the PUBLIC KEY blocks of a PEM file. BundleError for none or another kind."""
        try:
            blocks = BLOCK.findall(path.read_bytes())
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        keys = tuple(_ed25519(path, block) for block in blocks)
        if not keys:
            raise BundleError(f"{path}: holds no PEM public key (openssl pkey -in … -pubout)")
        return cls(keys)

    def check(self, place: Path, manifest: bytes, signature: bytes | None) -> str:
        """Return the fingerprint of the key that signed ``manifest``; BundleError for none."""
        if signature is None:
            raise BundleError(
                f"{place / SIGNATURE}: not found, and a signature is required; {SIGN}"
            )
        raw = _decoded(place / SIGNATURE, signature)
        for key in self.keys:
            try:
                key.verify(raw, manifest)
            except InvalidSignature:
                continue
            return fingerprint(key)
        known = ", ".join(map(fingerprint, self.keys))
        raise BundleError(
            f"{place / SIGNATURE}: not a signature of {MANIFEST} by a known key ({known}): "
            f"altered, or signed with another key; {SIGN}"
        )


def sign(bundle: Path, key: Path) -> str:
    """Write ``manifest.sig`` beside the manifest; return the key's fingerprint."""
    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
        manifest = (bundle / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BundleError(
            f"{key}: not an unencrypted PEM private key (openssl genpkey -algorithm ed25519)"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise BundleError(f"{key}: not an Ed25519 key (openssl genpkey -algorithm ed25519)")
    partial = bundle / f".{SIGNATURE}.{os.getpid()}.partial"
    try:
        partial.write_bytes(base64.b64encode(private.sign(manifest)) + b"\n")
        partial.replace(bundle / SIGNATURE)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BundleError(f"{bundle / SIGNATURE}: cannot be written: {error.strerror}") from error
    return fingerprint(private.public_key())


def read_signature(bundle: Path) -> bytes | None:
    try:
        return plain_files.read(bundle / SIGNATURE, MOST_BYTES)
    except FileNotFoundError:
        return None


def fingerprint(key: Ed25519PublicKey) -> str:
    """A key's name in messages: the first 8 of its raw bytes."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)[:8].hex()


def _ed25519(path: Path, block: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path}: not a PEM public key (openssl pkey -pubout)") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{path}: not an Ed25519 public key")
    return key


def _decoded(file: Path, signature: bytes) -> bytes:
    try:
        if len(signature) > MOST_BYTES:
            raise ValueError("too long")
        return base64.b64decode(signature.strip(), validate=True)
    except (ValueError, binascii.Error):
        raise BundleError(f"{file}: not a signature in base64; {SIGN}") from None
