"""Imports bundles: copies their files to local copies and checks them against the manifest.

Checks names, kinds, sizes, digests, signature, schema, and that the version is not known with other
content. Files are opened once, without following links, and the copy is what is checked: nothing
can change between check and use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from feature_store.schema import FeatureSchema
from model_export.bundle import plain_files
from model_export.bundle.bundle import REBUILD, Bundle, parse_manifest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import (
    MANIFEST,
    MOST_MANIFEST_BYTES,
    SIGNATURE,
    FileRecord,
    Manifest,
)
from model_export.bundle.plain_files import COPY_IT
from model_export.bundle.signature import MOST_BYTES as MOST_SIGNATURE_BYTES
from model_export.bundle.signature import PublicKeys, read_signature
from service.artifacts.local_copies import LocalCopies
from service.artifacts.persisted_state import MAKE_ROOM, Copy
from service.observability.logs import logger

PIECE = 1 << 20  # bytes copied and digested at a time
MOST_NAMES = 1000  # in a bundle's folder


class NotTheStoresError(BundleError):
    """The store lacks features of the bundle, or keeps them in another form."""


@dataclass(frozen=True, slots=True)
class ImportPolicy:
    """What may be imported."""

    most_bytes: int
    keys: PublicKeys | None = None  # None: signatures are not checked
    store_schema: FeatureSchema | None = None


class Listed(Protocol):
    """A manifest, of which an import reads the files."""

    @property
    def files(self) -> Mapping[str, FileRecord]: ...


B = TypeVar("B")
M = TypeVar("M", bound=Listed)


@dataclass(frozen=True, slots=True)
class BundleKind(Generic[M, B]):
    """Reads bundles of a kind; each raises BundleError."""

    parse: Callable[[Path, bytes], M]  # a manifest, of the folder that is imported
    make: Callable[[Path, M], B]  # of a copy whose files have just been checked
    open: Callable[[Path], B]  # an existing copy: checks its files
    remedy: str = REBUILD


@dataclass(frozen=True, slots=True)
class ImportedBundle:
    """A complete local copy that matches its manifest."""

    bundle: Bundle
    copy: Copy
    signer: str | None  # fingerprint of the signing key


def import_bundle(folder: Path, copies: LocalCopies, policy: ImportPolicy) -> ImportedBundle:
    """Copy a model's bundle (…/VERSION) unless it was copied before. BundleError."""

    def parse(path: Path, content: bytes) -> Manifest:
        manifest = parse_manifest(path, content)
        _check_schema(folder, manifest, policy)
        return manifest

    kind = BundleKind(parse, Bundle, lambda copied: _opened_copy(copied, policy))
    return ImportedBundle(*import_kind(kind, folder, copies, policy))


def import_kind(
    kind: BundleKind[M, B], folder: Path, copies: LocalCopies, policy: ImportPolicy
) -> tuple[B, Copy, str | None]:
    """Copy a bundle of any kind: return it, its copy and the fingerprint of its signer."""
    remedy = kind.remedy
    with _opened_folder(folder) as descriptor:
        content = _read(folder, descriptor, MANIFEST, MOST_MANIFEST_BYTES, remedy)
        copy = Copy(version=folder.name, digest=hashlib.sha256(content).hexdigest())
        copies.check_known(copy)
        names = _names(folder, descriptor, remedy)
        signature = (
            _read(folder, descriptor, SIGNATURE, MOST_SIGNATURE_BYTES, remedy)
            if SIGNATURE in names
            else None
        )
        signer = policy.keys.check(folder, content, signature) if policy.keys else None
        existing = copies.copy(copy.digest, copy.version)
        if existing.is_dir():
            try:
                copies.touch(copy.digest)
                return kind.open(existing), copy, signer
            except BundleError as error:
                logger.warning("local copy damaged: copying again", reason=str(error))
                copies.discard(copy)
        try:
            with copies.incoming(copy.version) as target:
                (target / MANIFEST).write_bytes(content)
                manifest = kind.parse(target, content)
                _check(folder, manifest, names, policy, remedy)
                for name, record in manifest.files.items():
                    _copy_file(folder, descriptor, name, record, target / name, remedy)
                if signature is not None:
                    (target / SIGNATURE).write_bytes(signature)
                bundle = kind.make(copies.adopt(target, copy.digest), manifest)
        except OSError as error:
            raise BundleError(
                f"{folder}: cannot be copied to {copies.path}: {error.strerror}; {MAKE_ROOM}"
            ) from error
        return bundle, copy, signer


def reopen_copy(copy: Copy, copies: LocalCopies, policy: ImportPolicy) -> ImportedBundle:
    """Check an existing copy again. BundleError if missing, damaged or no longer allowed."""
    folder = copies.copy(copy.digest, copy.version)
    bundle = _opened_copy(folder, policy)
    content = plain_files.read(folder / MANIFEST, MOST_MANIFEST_BYTES)
    if hashlib.sha256(content).hexdigest() != copy.digest:
        raise BundleError(f"{folder / MANIFEST}: its content has changed since it was imported")
    signer = None
    if policy.keys is not None:
        signer = policy.keys.check(folder, content, read_signature(folder))
    return ImportedBundle(bundle, copy, signer)


def _opened_copy(folder: Path, policy: ImportPolicy) -> Bundle:
    bundle = Bundle.open(folder)  # digests
    _check_schema(folder, bundle.manifest, policy)
    return bundle


def _check(
    folder: Path, manifest: Listed, names: set[str], policy: ImportPolicy, remedy: str
) -> None:
    expected = {MANIFEST, *manifest.files}
    missing = sorted(expected - names)
    if missing:
        raise BundleError(f"{folder / missing[0]}: not found; {remedy}")
    surplus = sorted(names - expected - {SIGNATURE})
    if surplus:
        raise BundleError(
            f"{folder / surplus[0]}: not in the manifest, and a bundle holds nothing else; "
            f"remove it, or {remedy}"
        )
    size = sum(record.size for record in manifest.files.values())
    if size > policy.most_bytes:
        raise BundleError(
            f"{folder}: {size:,} bytes, more than the limit of {policy.most_bytes:,} "
            "(QIN_MAX_BUNDLE_BYTES)"
        )


def _check_schema(folder: Path, manifest: Manifest, policy: ImportPolicy) -> None:
    if policy.store_schema is None:
        return
    differences = manifest.feature_schema.unserved_by(policy.store_schema)
    if differences:
        raise NotTheStoresError(
            f"{folder / MANIFEST}: feature_schema: not the store's: {'; '.join(differences)}; "
            "use a store that was loaded with it "
            "(`python -m feature_store load STORE --schema FILE`)"
        )


def _names(folder: Path, descriptor: int, remedy: str) -> set[str]:
    """List the open folder. BundleError if it holds more than any bundle."""
    with os.scandir(descriptor) as entries:
        names = {entry.name for entry in islice(entries, MOST_NAMES + 1)}
    if len(names) > MOST_NAMES:
        raise BundleError(f"{folder}: holds more than {MOST_NAMES:,} files; {remedy}")
    return names


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BundleError(f"{folder}: not found; publish it, or name another version") from None
    except OSError as error:
        raise BundleError(
            f"{folder}: not a directory, or a link: {error.strerror}; {COPY_IT}"
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened_file(
    folder: Path, descriptor: int, name: str, remedy: str
) -> Iterator[tuple[int, int]]:
    """Open a plain file without other hard links. Yields descriptor and size."""
    file = folder / name
    with ExitStack() as stack:
        try:
            opened, found = stack.enter_context(plain_files.opened(file, descriptor))
        except FileNotFoundError:
            raise BundleError(f"{file}: not found; {remedy}") from None
        if found.st_nlink != 1:
            raise BundleError(f"{file}: a hard link, through which it could be changed; {COPY_IT}")
        yield opened, found.st_size


def _read(folder: Path, descriptor: int, name: str, most: int, remedy: str) -> bytes:
    with _opened_file(folder, descriptor, name, remedy) as (opened, size):
        return plain_files.read_opened(folder / name, opened, size, most)


def _copy_file(
    folder: Path, descriptor: int, name: str, record: FileRecord, target: Path, remedy: str
) -> None:
    """Copy exactly ``record.size`` bytes and compare them with ``record.sha256``."""
    with (
        _opened_file(folder, descriptor, name, remedy) as (opened, size),
        target.open("xb") as copy,
    ):
        if size != record.size:
            raise BundleError(
                f"{folder / name}: {size} bytes, and the manifest says {record.size}; {remedy}"
            )
        digest, left = hashlib.sha256(), size
        while left and (piece := os.read(opened, min(PIECE, left))):
            digest.update(piece)
            copy.write(piece)
            left -= len(piece)
    if left or digest.hexdigest() != record.sha256:
        raise BundleError(
            f"{folder / name}: sha-256 {digest.hexdigest()[:16]}…, and the manifest says "
            f"{record.sha256[:16]}…; {remedy}"
        )
