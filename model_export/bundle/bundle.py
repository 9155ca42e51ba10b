"""Reads and publishes bundles: folders written atomically and immutable.

models/20261121T093000Z/
    manifest.json                       metadata; sizes and digests of the other files
    item_tower.onnx      .weights       features -> item vector, first-layer row
    context_tower.onnx   .weights       context levels -> their share of the row
    user_tower.onnx      .weights       user and request features -> their vector and row (optional)
    NAME.table.npy                      a large table of user or request features (optional)
    history_tower.onnx   .weights       item vectors -> keys, values, rows
    ranker.onnx          .weights       candidates × history × context -> probability
    ranker.int8.onnx     .weights       the same with int8 products (optional)
    golden.npz                          raw inputs and the PyTorch network's answers
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
from pydantic import ValidationError

from feature_store.schema import FeatureSchema
from feature_store.wording import details, place, reason
from model_export.bundle import plain_files
from model_export.bundle.errors import BundleError
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    MOST_AHEAD,
    MOST_FILES,
    MOST_MANIFEST_BYTES,
    MOST_MANIFEST_VALUES,
    READABLE,
    VERSION_PATTERN,
    FileRecord,
    Manifest,
)
from model_export.bundle.publishing import publish, staging_folder

logger = logging.getLogger(__name__)
MOST_SHOWN = 200  # characters of a manifest quoted in a message
REBUILD = "copy the bundle again or rebuild it with `python -m model_export build`"


@dataclass(frozen=True, slots=True)
class Bundle:
    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open a bundle and verify every file's size and digest. Raises BundleError."""
        path = Path(path)
        manifest = read_manifest(path)
        for name, record in manifest.files.items():
            check_file(path / name, record)
        return cls(path, manifest)

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def schema(self) -> FeatureSchema:
        return self.manifest.feature_schema

    def graph(self, name: str) -> Path:
        return self.path / f"{name}.onnx"

    def golden(self) -> Golden:
        """Load the golden answers."""
        return Golden.load(self.path / GOLDEN)


def newest(models: Path | str) -> Bundle:
    """Open the newest usable bundle of a models folder; log unusable ones. Raises BundleError."""
    models = Path(models)
    faults: list[BundleError] = []

    def passed_over(error: BundleError) -> None:
        faults.append(error)
        logger.warning("passed over: %s", error)

    for bundle in usable(models, passed_over):
        if bundle.manifest.created - datetime.now(UTC) <= MOST_AHEAD:
            return bundle
        date = bundle.manifest.created.isoformat()
        passed_over(BundleError(f"{bundle.path}: created {date}, which is in the future"))
    if faults:
        raise BundleError(f"{models}: holds no bundle that can be used: {faults[0]}")
    raise BundleError(
        f"{models}: holds no bundle; build one with "
        f"`python -m model_export build CHECKPOINT --out {models}`"
    )


def usable(models: Path, passed_over: Callable[[BundleError], None]) -> Iterator[Bundle]:
    """Yield usable bundles, newest first; call ``passed_over`` with the error of each other."""
    for folder in _newest_first(models, passed_over):
        try:
            yield Bundle.open(folder)
        except BundleError as error:
            passed_over(error)


def _newest_first(models: Path, passed_over: Callable[[BundleError], None]) -> list[Path]:
    """List the bundles whose manifests can be read, without checking their other files."""
    found = []
    for folder in bundle_folders(models):
        try:
            found.append((folder, read_manifest(folder)))
        except BundleError as error:
            passed_over(error)
    found.sort(key=lambda one: (one[1].created, one[1].version), reverse=True)
    return [folder for folder, _ in found]


def bundle_folders(models: Path) -> list[Path]:
    """List folders with a manifest, by name; excludes bundles being written."""
    if not models.is_dir():
        return []
    named = (f for f in models.iterdir() if re.fullmatch(VERSION_PATTERN, f.name))
    return sorted(folder for folder in named if _may_hold_a_manifest(folder))


def _may_hold_a_manifest(folder: Path) -> bool:
    try:
        os.lstat(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # no permission: reading it raises the error
        pass
    return True


def read_manifest(path: Path) -> Manifest:
    """Read a bundle's manifest without checking its other files. Raises BundleError."""
    file = path / MANIFEST
    try:
        content = plain_files.read(file, MOST_MANIFEST_BYTES)
    except FileNotFoundError:
        if example := _an_example(path):
            fault = f"{path}: a folder of bundles; name one of them, such as {example}"
            raise BundleError(fault) from None
        raise BundleError(f"{file}: not found, so {path} is not a bundle; {REBUILD}") from None
    return parse_manifest(path, content)


def _an_example(models: Path) -> Path | None:
    """Return the newest bundle of a folder, else one that cannot be read; None without any."""
    try:
        folders = bundle_folders(models)
    except OSError:  # no permission to list it
        return None
    return next(iter([*_newest_first(models, lambda _: None), *reversed(folders)]), None)


def parse_manifest(path: Path, text: bytes) -> Manifest:
    """Parse the manifest of the bundle at ``path``. Raises BundleError."""
    file = path / MANIFEST
    # Validating the wrong values of one megabyte would take hundreds.
    if len(text) > MOST_MANIFEST_BYTES or text.count(b",") >= MOST_MANIFEST_VALUES:
        raise BundleError(
            f"{file}: more than {MOST_MANIFEST_BYTES:,} bytes or {MOST_MANIFEST_VALUES:,} values; "
            f"{REBUILD}"
        )
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{file}: not JSON: {error}; {REBUILD}") from None
    if isinstance(content, dict) and "shape" in content and "feature_schema" not in content:
        raise BundleError(
            f"{file}: not of a model's bundle, but of an encoder's (`python -m text`); {REBUILD}"
        )
    if not isinstance(content, dict) or content.get("format") not in READABLE:
        written = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"{file}: format: {_shown(repr(written))}, and this release reads formats "
            f"{READABLE[0]} to {READABLE[-1]}; "
            "rebuild the bundle with this release, or serve it with the one that wrote it"
        )
    files = content.get("files")
    if isinstance(files, dict) and len(files) > MOST_FILES:
        raise BundleError(f"{file}: files: {len(files):,}, and a bundle has at most {MOST_FILES}")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = details(error)[0]
        raise BundleError(f"{file}: {_shown(place(first))}{reason(first)}; {REBUILD}") from None
    check_names(file, manifest.version, sorted(required(manifest) - manifest.files.keys()))
    return manifest


def check_names(file: Path, version: str, missing: Sequence[str], remedy: str = REBUILD) -> None:
    """Raise BundleError if files are not listed, or the folder is not called as its version."""
    if missing:
        raise BundleError(f"{file}: files: {', '.join(missing)} not listed; {remedy}")
    name = file.parent.resolve().name
    if name != version:
        raise BundleError(
            f"{file}: version: {version!r} in a folder named {name!r}; "
            "give the folder its version's name"
        )


def _shown(text: str) -> str:
    """Shorten text quoted from a manifest."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def required(manifest: Manifest) -> set[str]:
    """Names of the files that a bundle must list."""
    return {GOLDEN, *(f"{g}{kind}" for g in manifest.graphs for kind in (".onnx", ".weights"))}


def check_file(file: Path, record: FileRecord, remedy: str = REBUILD) -> None:
    """Raise BundleError unless ``file`` has the size and the digest of ``record``."""
    try:
        with plain_files.opened(file) as (descriptor, status):
            if status.st_size != record.size:
                raise BundleError(
                    f"{file}: {status.st_size} bytes, and the manifest says {record.size}; {remedy}"
                )
            with os.fdopen(os.dup(descriptor), "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}; {remedy}") from error
    if found != record.sha256:
        raise BundleError(
            f"{file}: sha-256 {found[:16]}…, and the manifest says {record.sha256[:16]}…; {remedy}"
        )


def digest(file: Path) -> FileRecord:
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileRecord(sha256=sha256, size=file.stat().st_size)


@dataclass(frozen=True, slots=True)
class Staging:
    """A bundle being written."""

    path: Path
    version: str
    schema: FeatureSchema

    def graph(self, name: str) -> Path:
        return self.path / f"{name}.onnx"

    def records(self) -> dict[str, FileRecord]:
        return {file.name: digest(file) for file in sorted(self.path.iterdir())}

    def publish(self, manifest: Manifest) -> Bundle:
        """Write the manifest, fsync everything, rename the folder to its version."""
        return Bundle(publish(self.path, self.version, manifest), manifest)


@contextmanager
def staged(models: Path, version: str, schema: FeatureSchema) -> Iterator[Staging]:
    """Create a folder to write a bundle into; removed at the end unless published."""
    with staging_folder(models, version) as folder:
        yield Staging(folder, version, schema)


def check_version(version: str) -> str:
    """Return the version. Raises BundleError unless it can name a folder and a URL segment."""
    if not re.fullmatch(VERSION_PATTERN, version):
        raise BundleError(
            f"version: {version!r}: 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return version


def free_version(models: Path, now: datetime) -> str:
    """Choose ``20261121T093000Z``, or ``20261121T093000Z-2`` and so on if it exists."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    version, number = stamp, 1
    while (models / version).exists():
        number += 1
        version = f"{stamp}-{number}"
    return version
