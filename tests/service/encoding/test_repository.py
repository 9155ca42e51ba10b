"""Encoders are found by the digest of their contents, newest first; faults name what there is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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


def lose(folder: Path) -> None:
    (folder / "encoder.weights").unlink()


def be_half_copied(folder: Path) -> None:
    os.truncate(folder / "encoder.weights", 100)


def have_a_temporary_file(folder: Path) -> None:
    (folder / ".golden.npz.Xa2bQ1").touch()


def be_of_the_future(folder: Path) -> None:
    manifest = folder / "manifest.json"
    created = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"created": created}))


LATER = {
    lose: r"later: encoder\.weights is missing",
    be_half_copied: r"later: encoder\.weights: 100 of [\d,]+ bytes",
    have_a_temporary_file: r"later: \.golden\.npz\.Xa2bQ1 is not in the manifest",
    be_of_the_future: r"later: created .* in the future by this host's clock",
}


@pytest.mark.parametrize("happens", LATER)
def test_the_older_complete_bundle_is_found_until_the_newest_may_be(
    folder: Path, tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    encoders = Path(shutil.copytree(folder, tmp_path / "encoders"))
    made = digest(encoders / "two")
    happens(encoders / "later")
    repository = EncoderRepository(encoders)
    assert repository.find(None).manifest.version == "two"
    assert repository.find(made).manifest.version == "two"
    shutil.rmtree(encoders / "two")
    assert repository.find(None).manifest.version == "one"
    with pytest.raises(BundleError, match=LATER[happens]) as incomplete:
        repository.find(made)
    assert str(incomplete.value).startswith(str(encoders / "later"))


def test_a_single_bundle_is_found_with_any_date_and_only_when_complete(
    folder: Path, tmp_path: Path
) -> None:
    single = Path(shutil.copytree(folder / "later", tmp_path / "later"))
    be_of_the_future(single)
    assert EncoderRepository(single).find(None).folder == single
    lose(single)
    with pytest.raises(BundleError, match=LATER[lose]):
        EncoderRepository(single).find(None)
