"""Encoders are found by the digest of their contents, newest first; faults name what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_export.bundle.errors import BundleError
from service.encoding.repository import EncoderRepository
from tests.service.content_encoder import content_encoder
from text.runtime.bundle import EncoderBundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoders with maps of their own, the second twice, and one without."""
    work = tmp_path_factory.mktemp("several")
    made = [
        content_encoder(work, "one", 1),
        content_encoder(work, "two", 2),
        content_encoder(work, "later", 2),
    ]
    encoders = work / "encoders"
    for path in (*made, work / "plain" / "plain"):
        shutil.copytree(path, encoders / path.name)
    return encoders


def digest(folder: Path) -> str:
    content = EncoderBundle.open(folder).manifest.content
    assert content is not None
    return content.digest


def test_an_encoder_is_found_by_the_digest_of_its_contents_the_newest_first(folder: Path) -> None:
    repository = EncoderRepository(folder)
    assert not repository.single
    assert repository.find(digest(folder / "one")).manifest.version == "one"
    assert digest(folder / "two") == digest(folder / "later")
    assert repository.find(digest(folder / "two")).manifest.version == "later"
    assert repository.find(None).manifest.version == "later"


def test_a_single_bundle_is_found_and_no_other(folder: Path) -> None:
    repository = EncoderRepository(folder / "plain")
    assert repository.single
    assert repository.find(None).folder == folder / "plain"
    with pytest.raises(BundleError, match=r"there are: plain \(no map\)"):
        repository.find(digest(folder / "one"))


def test_of_an_unknown_digest_those_that_there_are_are_named(folder: Path) -> None:
    with pytest.raises(BundleError, match="no encoder makes contents of digest c0ffee") as error:
        EncoderRepository(folder).find("c0ffee")
    assert f"one ({digest(folder / 'one')})" in str(error.value)


def test_incomplete_and_damaged_bundles_are_passed_over(folder: Path, tmp_path: Path) -> None:
    encoders = tmp_path / "encoders"
    shutil.copytree(folder / "one", encoders / "one")
    (encoders / "arriving").mkdir()
    shutil.copytree(folder / "two", encoders / "two")
    (encoders / "two" / "manifest.json").write_text("{}")
    (encoders / ".hidden").mkdir()
    (encoders / "loop").symlink_to("loop")
    assert EncoderRepository(encoders).find(None).manifest.version == "one"
    shutil.rmtree(encoders / "one")
    with pytest.raises(BundleError, match=r"manifest\.json: not"):
        EncoderRepository(encoders).find(None)
    for nothing in (tmp_path / "none", tmp_path):
        with pytest.raises(BundleError, match=str(nothing)):
            EncoderRepository(nothing).find(None)
