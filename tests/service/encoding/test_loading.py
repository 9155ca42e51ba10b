"""An encoder is imported, signed and verified as models are, and ready before requests are."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
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
from model_export.bundle.errors import BundleError
from model_export.bundle.signature import PublicKeys, sign
from service.application import build_application
from service.artifacts.importer import ImportPolicy
from service.encoding.loading import EncoderLoader
from service.errors import ModelFault, NotReady
from service.settings import Settings
from tests.service.in_process import client_of, opened
from tests.service.process import start
from tests.service.world import World
from text.runtime.bundle import EncoderBundle
from text.runtime.encoder import TextEncoder
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import GOLDEN, MANIFEST


@pytest.fixture
def copied(encoder_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_bundle, tmp_path / "encoders" / encoder_bundle.name))


def load(folder: Path, private: Path, policy: ImportPolicy | None = None) -> TextEncoder:
    settings = Settings(private=private, encoder=folder)
    loader = EncoderLoader(folder, settings, policy or ImportPolicy(2**40))

    async def found_and_loaded() -> TextEncoder:
        return await loader.load(await loader.find(None))

    return asyncio.run(found_and_loaded())


def test_what_is_served_is_a_private_copy_that_was_verified(copied: Path, tmp_path: Path) -> None:
    encoder = load(copied, tmp_path / "private")
    served = encoder.bundle.path
    assert served.is_relative_to(tmp_path / "private")
    proof = (served.parent / "proved").read_text()
    assert "onnxruntime" in proof
    assert "tokenizers" in proof
    shutil.rmtree(copied)  # the copy alone answers
    assert encoder.encode(["tree"]).vectors.shape == (1, 24)


def test_a_bundle_whose_golden_answers_differ_is_refused(copied: Path, tmp_path: Path) -> None:
    bundle = EncoderBundle.open(copied)
    golden = GoldenTexts.load(copied / GOLDEN)
    other = replace(golden, vectors=golden.vectors[::-1].copy())
    (copied / GOLDEN).unlink()
    other.save(copied / GOLDEN)
    files = {**bundle.manifest.files, GOLDEN: digest(copied / GOLDEN)}
    manifest = bundle.manifest.model_copy(update={"files": files})
    (copied / MANIFEST).write_text(manifest.model_dump_json())
    with pytest.raises(BundleError, match="refused by inspection: golden answers") as refused:
        load(copied, tmp_path / "private")
    assert str(copied) in str(refused.value)  # as it was published


def test_a_damaged_file_is_named(copied: Path, tmp_path: Path) -> None:
    weights = bytearray((copied / "encoder.weights").read_bytes())
    weights[7] ^= 1
    (copied / "encoder.weights").write_bytes(bytes(weights))
    with pytest.raises(BundleError, match=r"encoder\.weights: sha-256"):
        load(copied, tmp_path / "private")


def test_with_a_public_key_an_unsigned_encoder_is_refused(copied: Path, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(private)
    (tmp_path / "key.pub").write_bytes(public)
    policy = ImportPolicy(2**40, PublicKeys.read(tmp_path / "key.pub"))
    with pytest.raises(BundleError, match="a signature is required"):
        load(copied, tmp_path / "private", policy)
    sign(copied, tmp_path / "key.pem")
    assert load(copied, tmp_path / "private", policy).bundle.version == copied.name


def test_a_start_with_an_encoder_that_cannot_be_served_ends_with_the_reason(
    world: World, tmp_path: Path
) -> None:
    running = start(
        *("--bundle", str(world.models), "--store", world.store),
        QIN_ENCODER=str(tmp_path / "words-9"),
    )
    assert running.process.wait(120) == 1
    assert "words-9: not found" in running.log.read_text()
    running.remove()


async def test_before_it_is_loaded_requests_and_readiness_wait(
    world: World, encoder_bundle: Path
) -> None:
    async with opened(world, encoder=encoder_bundle) as state:
        assert state.encoding is not None
        encoders, state.encoding._encoders = state.encoding._encoders, list
        with pytest.raises(NotReady, match="the encoder"):
            _ = state.encoding.encoder
        async with client_of(state) as client:
            answer = await client.post("/v1/embeddings", json={"input": "a"})
        assert answer.status_code == 503
        state.encoding._encoders = encoders
        assert state.scores


async def test_a_vector_that_is_not_finite_is_a_500_that_names_the_text(
    world: World, encoder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, encoder=encoder_bundle) as state:
        assert state.encoding is not None
        packed = state.encoding.encoder.graphs.packed
        monkeypatch.setattr(
            type(packed), "_run", lambda self, pack, tokens: np.full((len(pack.texts), 24), np.nan)
        )
        async with client_of(state) as client:
            answer = await client.post("/v1/embeddings", json={"input": ["a", "b"]})
        assert answer.status_code == ModelFault.status
        assert answer.json()["detail"].startswith("input.")
        assert "its vector is not finite" in answer.json()["detail"]


async def test_versions_that_need_the_same_encoder_share_it_and_it_is_freed_with_the_last(
    world: World, encoder_bundle: Path, tmp_path: Path
) -> None:
    async with opened(world, encoder=encoder_bundle, private=tmp_path / "private") as state:
        assert state.encoding is not None
        loader = state.encoding.loader
        first = state.encoding.encoder
        again = await loader.load(await loader.find(None))
        assert again is first
        assert loader.loaded == 1
        listed = await state.manager.catalog.listing()
        assert [each["encoder"] for each in listed] == [{"version": "words-1", "content": None}]


FAULTS = {
    "a file less": "encoder.weights is missing; ",
    "a file more": "extra is not in the manifest; ",
    "another size": r"tokenizer\.json: 2 of [\d,]+ bytes; ",
    "another content": "encoder.weights: sha-256",
    "no manifest": "holds no encoder bundle|manifest.json: not found",
    "not JSON": "manifest.json: not JSON",
    "a model": "not of an encoder bundle, but of another kind",
}


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("single", [True, False], ids=["bundle", "folder"])
def test_what_is_no_encoder_names_the_command_that_makes_one(
    copied: Path, tmp_path: Path, case: str, single: bool
) -> None:
    weights = copied / "encoder.weights"
    match case:
        case "a file less":
            weights.unlink()
        case "a file more":
            (copied / "extra").touch()
        case "another size":
            (copied / "tokenizer.json").write_text("{}")
        case "another content":
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        case "no manifest":
            (copied / MANIFEST).unlink()
        case "not JSON":
            (copied / MANIFEST).write_text("{")
        case "a model":
            (copied / MANIFEST).write_text('{"format": 2}')
    with pytest.raises(BundleError, match=FAULTS[case]) as refused:
        load(copied if single else copied.parent, tmp_path / "private")
    assert str(refused.value).count("`python -m text build") == 1
    assert "model_export" not in str(refused.value)


def test_a_wrong_encoder_is_reported_before_models_are_copied(world: World, tmp_path: Path) -> None:
    wrong, private = tmp_path / "nope", tmp_path / "private"
    settings = Settings(bundle=world.models, store=world.store, encoder=wrong, private=private)

    async def opening() -> None:
        async with build_application(settings):
            pass

    fault = rf"^{wrong}: not found \(QIN_ENCODER\); `python -m text build CHECKPOINT --out {wrong}`"
    with pytest.raises(BundleError, match=fault):
        asyncio.run(opening())
    assert not list(private.glob("**/manifest.json"))
