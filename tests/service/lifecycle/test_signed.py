"""With a public key only what its owner signed comes in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_export.bundle.manifest import SIGNATURE
from model_export.bundle.signature import sign
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import Swapping, running, two_versions
from tests.service.process import start


def new_key(folder: Path, name: str) -> tuple[Path, bytes]:
    """A private key's file, and the PEM of the public one."""
    key = Ed25519PrivateKey.generate()
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return file, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``old.pem``, ``new.pem`` and ``others.pem``; ``trusted.pub`` holds the first two."""
    folder = tmp_path_factory.mktemp("keys")
    trusted = [new_key(folder, name)[1] for name in ("old", "new")]
    (folder / "trusted.pub").write_bytes(b"".join(trusted))
    new_key(folder, "others")
    return folder


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Swapping]:
    world, networks = two_versions(tmp_path_factory.mktemp("signed"))
    sign(world.models / "small-1", keys / "old.pem")
    sign(world.models / "small-2", keys / "new.pem")
    yield from running(world, networks, QIN_PUBLIC_KEY=str(keys / "trusted.pub"))


def test_either_of_two_trusted_keys_may_have_signed(swapping: Swapping) -> None:
    signers = {swapping.tell(f"small-{n}/load").json()["signer"] for n in (1, 2)}
    assert len(signers) == 2
    assert None not in signers


def unsigned(folder: Path, keys: Path) -> None:
    pass


def signed_by_another(folder: Path, keys: Path) -> None:
    sign(folder, keys / "others.pem")


def changed_after_signing(folder: Path, keys: Path) -> None:
    sign(folder, keys / "old.pem")
    hostile.change_manifest(folder, parameters=7)


def signed_elsewhere(folder: Path, keys: Path) -> None:
    """The good signature of another bundle."""
    shutil.copy(folder.parent / "small-2" / SIGNATURE, folder)


def not_a_signature(folder: Path, keys: Path) -> None:
    (folder / SIGNATURE).write_text("x" * 900)


def a_link_for_a_signature(folder: Path, keys: Path) -> None:
    (folder / SIGNATURE).symlink_to(folder.parent / "small-2" / SIGNATURE)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (unsigned, "manifest.sig: not found, and a signature is required"),
        (signed_by_another, "not a signature of manifest.json by a known key"),
        (changed_after_signing, "not a signature of manifest.json by a known key"),
        (signed_elsewhere, "not a signature of manifest.json by a known key"),
        (not_a_signature, "not a signature"),
        (a_link_for_a_signature, "a symbolic link"),
    ],
)
def test_anything_else_is_refused(
    swapping: Swapping, keys: Path, damage: hostile.Damage, reason: str
) -> None:
    folder = hostile.copied(swapping.world.models / "small-2", damage.__name__)
    damage(folder, keys)  # type: ignore[call-arg]
    refused = swapping.tell(f"{folder.name}/activate")
    assert refused.status_code == 422
    assert reason in refused.json()["detail"]
    swapping.serves("small-1")


def test_what_was_taken_in_unsigned_is_not_begun_with_once_there_is_a_key(
    tmp_path: Path, keys: Path
) -> None:
    world, _ = two_versions(tmp_path)
    options = ("--bundle", str(world.models), "--store", world.store)
    ended = start(*options, QIN_PUBLIC_KEY=str(keys / "trusted.pub"))
    assert ended.process.wait(30) == 1
    assert "manifest.sig: not found, and a signature is required" in ended.log.read_text()
    ended.remove()


@pytest.mark.parametrize("content", [b"", b"not a key", None])
def test_a_key_file_that_holds_none_ends_the_start(
    tmp_path: Path, swapping: Swapping, content: bytes | None
) -> None:
    file = tmp_path / "key.pub"
    if content is not None:
        file.write_bytes(content)
    world = swapping.world
    options = ("--bundle", str(world.models), "--store", world.store)
    ended = start(*options, QIN_PUBLIC_KEY=str(file))
    assert ended.process.wait(30) == 1
    assert str(file) in ended.log.read_text()
    assert "Traceback" not in ended.log.read_text()
    ended.remove()
