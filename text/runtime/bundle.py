"""Opens encoder bundles: folders that ``python -m text build`` publishes, immutable.

encoders/20261129T093000Z/
    manifest.json        metadata; sizes and digests of the other files
    manifest.sig         Ed25519 signature of the manifest (optional)
    tokenizer.json       the checkpoint's tokenizer
    encoder.onnx         rows of several texts -> unit vectors
    encoder.long.onnx    one long text -> its unit vector
    encoder.int8.onnx    rows of several texts, int8 products (optional)
    encoder.weights      weights of all graphs
    content.npz          map from vectors to content, which the float32 graphs compute (optional)
    golden.npz           texts of every length class and PyTorch's answers in float64
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import orjson
from pydantic import ValidationError

from feature_store.wording import worded
from model_export.bundle import plain_files
from model_export.bundle.bundle import bundle_folders, check_file, check_names
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import MOST_MANIFEST_BYTES, MOST_MANIFEST_VALUES
from model_export.bundle.signature import PublicKeys, read_signature
from text.runtime.content import ContentMap, content_digest, network_digest
from text.runtime.manifest import (
    CONTENT,
    FORMAT,
    GOLDEN,
    MANIFEST,
    PACKED,
    TOKENIZER,
    WEIGHTS,
    EncoderManifest,
)

REBUILD = "copy the bundle again or rebuild it with `python -m text build`"
REQUIRED = (f"{PACKED}.onnx", WEIGHTS, TOKENIZER, GOLDEN)


@dataclass(frozen=True, slots=True)
class EncoderBundle:
    """An encoder bundle whose files have been checked."""

    path: Path
    manifest: EncoderManifest

    @classmethod
    def open(cls, path: Path | str, keys: PublicKeys | None = None) -> EncoderBundle:
        """Open a bundle; verify its signature, where keys are given, and every file's digest.

        Raises BundleError.
        """
        path = Path(path)
        try:
            content = plain_files.read(path / MANIFEST, MOST_MANIFEST_BYTES)
        except FileNotFoundError:
            folders: list[Path] = []
            with suppress(OSError):  # no permission to list it
                folders = bundle_folders(path)
            if folders:
                raise BundleError(
                    f"{path}: a folder of bundles; name one of them, such as {folders[-1]}"
                ) from None
            raise BundleError(
                f"{path / MANIFEST}: not found, so {path} is not an encoder bundle; {REBUILD}"
            ) from None
        if keys is not None:
            keys.check(path, content, read_signature(path))
        manifest = parse_manifest(path, content)
        for name, record in manifest.files.items():
            check_file(path / name, record, REBUILD)
        return cls(path, manifest)

    def graph(self, name: str) -> Path:
        return self.path / f"{name}.onnx"

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def digest(self) -> str:
        """Digest of what the answers depend on: tokenizer, graphs, weights."""
        files = self.manifest.files
        named = (f"{name} {files[name].sha256}\n" for name in sorted(files) if name != GOLDEN)
        return hashlib.sha256("".join(named).encode()).hexdigest()

    @property
    def network(self) -> str:
        """Digest of weights and tokenizer: that of every bundle of the checkpoint."""
        weights = self.manifest.training.weights_sha256
        if weights is None:
            raise BundleError(f"{self.path}: does not say of which weights it is; {REBUILD}")
        return network_digest(weights, self.manifest.files[TOKENIZER].sha256)

    def content_map(self) -> ContentMap | None:
        """Read the map to content; None where the bundle has none. Raises BundleError."""
        said = self.manifest.content
        if said is None:
            return None
        found = ContentMap.load(self.path / CONTENT)
        found.check(self.network, self.manifest.shape.hidden, self.path / CONTENT)
        if (content_digest(self.network, found.digest), found.about.size) != (
            said.digest,
            said.size,
        ):
            raise BundleError(f"{self.path / CONTENT}: not the map of the manifest; {REBUILD}")
        return found


def check_graph(
    graph: Path, session: onnxruntime.InferenceSession, inputs: set[str], outputs: Sequence[str]
) -> list[int]:
    """Return the widths of a graph's outputs. Raises BundleError for a graph of another kind."""
    found = {each.name for each in session.get_inputs()}
    shapes = {each.name: each.shape for each in session.get_outputs()}
    last = [shapes[name][-1] for name in outputs if shapes.get(name)]
    widths = [width for width in last if isinstance(width, int)]
    if found != inputs or len(widths) != len(outputs):
        raise BundleError(
            f"{graph}: another graph than its name says: its inputs are "
            f"{', '.join(sorted(found))}, its outputs {', '.join(shapes)}; {REBUILD}"
        )
    return widths


def parse_manifest(path: Path, content: bytes) -> EncoderManifest:
    """Parse the manifest of the bundle at ``path``. Raises BundleError."""
    file = path / MANIFEST
    if content.count(b",") >= MOST_MANIFEST_VALUES:
        raise BundleError(f"{file}: more than {MOST_MANIFEST_VALUES:,} values; {REBUILD}")
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{file}: not JSON: {error}; {REBUILD}") from None
    if isinstance(values, dict) and "feature_schema" in values:
        raise BundleError(f"{file}: not of an encoder bundle, but of a model's; {REBUILD}")
    if not isinstance(values, dict) or "shape" not in values:
        raise BundleError(f"{file}: not of an encoder bundle, but of another kind; {REBUILD}")
    if values.get("format") != FORMAT:
        raise BundleError(
            f"{file}: format: {str(values.get('format'))[:40]}, and this release reads {FORMAT}; "
            "rebuild the bundle with this release, or use the one that wrote it"
        )
    try:
        manifest = EncoderManifest.model_validate(values)
    except ValidationError as error:
        raise BundleError(f"{file}: {worded(error)[:400]}; {REBUILD}") from None
    check_names(file, manifest.version, [n for n in REQUIRED if n not in manifest.files], REBUILD)
    return manifest
