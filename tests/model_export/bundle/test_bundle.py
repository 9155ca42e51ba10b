"""A bundle is whole or absent, immutable, and says what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from model_export.build import build
from model_export.bundle import bundle as bundles
from model_export.bundle.bundle import Bundle, free_version, newest, staged
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MANIFEST
from tests.model_export.schemas import SMALL
from training.qin import QIN

FILES = ["golden.npz"] + [
    f"{graph}.{kind}"
    for graph in ("item_tower", "context_tower", "history_tower", "ranker")
    for kind in ("onnx", "weights")
]


def edit(bundle: Bundle, change: Callable[[dict], object]) -> None:
    file = bundle.path / MANIFEST
    content = orjson.loads(file.read_bytes())
    change(content)
    file.write_bytes(orjson.dumps(content))


def test_open_reads_back_what_was_published(bundle: Bundle) -> None:
    assert Bundle.open(bundle.path) == bundle
    assert Bundle.open(str(bundle.path)).schema == SMALL


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_is_found(copied: Bundle, name: str) -> None:
    file = copied.path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: sha-256 .*copy the bundle again"):
        Bundle.open(copied.path)


def test_a_truncated_file_is_named_with_both_sizes(copied: Bundle) -> None:
    file = copied.path / "ranker.weights"
    size = file.stat().st_size
    os.truncate(file, size - 1)
    with pytest.raises(
        BundleError, match=f"ranker.weights: {size - 1} bytes, and the manifest says {size}"
    ):
        Bundle.open(copied.path)


def test_a_missing_file_is_named(copied: Bundle) -> None:
    (copied.path / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz: cannot be read: No such file"):
        Bundle.open(copied.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=4), "format: 4, and this release reads formats 1 to 3"),
        (lambda m: m.pop("format"), "format: None"),
        (lambda m: m.update(version="other"), "version: 'other' in a folder named 'mine'"),
        (lambda m: m.update(version="../mine"), "version: must match "),
        (lambda m: m["files"].pop("ranker.onnx"), r"files: ranker\.onnx not listed"),
        (
            lambda m: m["files"].update({"../x": m["files"]["golden.npz"]}),
            r"files\.\.\./x.*: must match ",
        ),
        (lambda m: m["files"]["golden.npz"].update(size=-1), r"files\.golden\.npz\.size"),
        (lambda m: m["feature_schema"].update(history_length=0), "feature_schema.history_length"),
        (lambda m: m.update(surprise=1), "surprise: unknown name"),
    ],
)
def test_a_wrong_manifest_names_the_place(
    copied: Bundle, change: Callable[[dict], object], message: str
) -> None:
    edit(copied, change)
    with pytest.raises(BundleError, match=rf"manifest\.json: {message}"):
        Bundle.open(copied.path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_no_manifest_is_refused(copied: Bundle, content: bytes) -> None:
    (copied.path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: (not JSON|format: None)"):
        Bundle.open(copied.path)


def test_a_folder_without_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(tmp_path)


def test_a_folder_of_bundles_is_named_as_one_with_its_newest(network: QIN, tmp_path: Path) -> None:
    for version in ("b", "c", "a"):
        build(network, tmp_path, version=version)
    (tmp_path / "c" / MANIFEST).write_text("{")
    with pytest.raises(BundleError) as refused:
        Bundle.open(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: a folder of bundles; name one of them, such as {tmp_path / 'a'}"
    )
    for good in "ab":
        (tmp_path / good / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match=f"such as {tmp_path / 'c'}$"):
        Bundle.open(tmp_path)


def test_an_encoder_s_bundle_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"format": 1, "shape": {}}')
    with pytest.raises(BundleError, match=r"but of an encoder's \(`python -m text`\)"):
        Bundle.open(tmp_path)


def test_newest_goes_by_creation_and_not_by_name(network: QIN, tmp_path: Path) -> None:
    for version in ("b", "c", "a"):
        build(network, tmp_path, version=version)
    assert newest(tmp_path).version == "a"


def test_newest_names_and_passes_over_what_cannot_be_used(
    network: QIN, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version in ("first", "good", "later", "cut", "broken", "linked"):
        made = build(network, tmp_path, version=version)
        if version == "later":
            edit(made, lambda content: content.update(created="9998-01-01T00:00:00Z"))
    os.truncate(tmp_path / "cut" / "ranker.weights", 100)
    (tmp_path / "broken" / MANIFEST).write_text("{")
    (tmp_path / "linked" / MANIFEST).unlink()
    (tmp_path / "linked" / MANIFEST).symlink_to(tmp_path / "linked" / MANIFEST)
    assert newest(tmp_path).version == "good"
    for version in ("later", "cut", "broken", "linked"):
        assert f"passed over: {tmp_path / version}" in caplog.text
    for version in ("first", "good"):
        os.truncate(tmp_path / version / "golden.npz", 1)
    with pytest.raises(BundleError, match=r"holds no bundle that can be used: .*broken"):
        newest(tmp_path)


def test_newest_of_nothing_says_how_to_build_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match="holds no bundle; build one with"):
            newest(folder)


def test_a_bundle_still_being_written_is_not_seen(copied: Bundle) -> None:
    models = copied.path.parent
    with staged(models, "later", SMALL) as staging:
        (staging.path / MANIFEST).write_bytes((copied.path / MANIFEST).read_bytes())
        assert newest(models).version == "mine"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with staged(tmp_path, "v", SMALL) as staging:
            (staging.path / "half").write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_immutable(copied: Bundle, network: QIN) -> None:
    before = (copied.path / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match=r"mine: exists, and a version is immutable"):
        build(network, copied.path.parent, version="mine")
    assert (copied.path / MANIFEST).read_bytes() == before


def test_two_writers_of_one_version_publish_one_bundle(copied: Bundle) -> None:
    """The slower of two is refused at the rename, whatever it saw when it began."""
    models = copied.path.parent
    with staged(models, "raced", SMALL) as staging:
        (models / "raced").mkdir()
        (models / "raced" / "whole").touch()
        with pytest.raises(BundleError, match="raced: exists"):
            staging.publish(copied.manifest.model_copy(update={"version": "raced"}))
    assert [file.name for file in (models / "raced").iterdir()] == ["whole"]


@pytest.mark.parametrize("version", ["", ".", "..", ".hidden", "a/b", "a b", "x" * 65, "a\n", "é"])
def test_a_version_that_cannot_name_a_folder_is_refused(version: str) -> None:
    with pytest.raises(BundleError, match=r"version: .* letters, digits"):
        bundles.check_version(version)


def test_default_versions_sort_by_time_even_within_a_second(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    made = []
    for moment in (now, now, now, now + timedelta(seconds=1)):
        made.append(free_version(tmp_path, moment))
        (tmp_path / made[-1]).mkdir()
    assert made[:2] == ["20261121T093000Z", "20261121T093000Z-2"]
    assert made == sorted(made)
