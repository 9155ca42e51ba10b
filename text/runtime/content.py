"""Maps vectors of texts, and given ones such as an image's, to the numbers of a model's feature.

What an item has are its modalities: ``text``, and given vectors by the names of their columns. A
map has an affine part for each combination of them that it was fitted for, so that a missing one is
left out of the sum, not replaced. An item's text vector is the mean of the unit vectors of its
texts; since the part of ``text`` alone is affine, the mean of its texts' contents is the same.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.wording import worded
from model_export.bundle import npz, plain_files
from model_export.bundle.errors import BundleError, said

TEXT = "text"  # modality
MOST_BYTES = 64 << 20
DIGITS = 16  # of a content digest
REFIT = "fit it again with `python -m text content fit`"
ZIP = b"PK"  # that an .npz begins with
UNREADABLE = (
    *(OSError, EOFError, TypeError, ValueError, KeyError, BadZipFile, ZlibError),
    *(RuntimeError, MemoryError),  # of a zip file that needs a password or another release
)
Floats = NDArray[np.float64]
Size = Annotated[int, Field(ge=1, le=16_384)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartAbout(_Frozen):
    """One combination of modalities and how well its part fits."""

    has: Annotated[tuple[str, ...], Field(min_length=1)]
    items: int
    penalty: float | None  # λ, of the mean variance of an input; None: principal components
    r2: float | None  # of held-out items
    explained: float | None  # share of the variance that principal components have


class MapAbout(_Frozen):
    """The origin of a map and what it takes and gives."""

    format: Literal[1] = 1
    method: Literal["pca", "ridge"]
    network: str  # digest of the encoder's weights and tokenizer
    feature: str  # dense item feature that the content is for
    size: Size  # C
    inputs: Annotated[dict[str, Size], Field(min_length=1)]  # modality -> numbers
    parts: Annotated[tuple[PartAbout, ...], Field(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """x @ weight + bias."""

    weight: Floats  # (X, C)
    bias: Floats  # (C,)

    def __call__(self, x: NDArray[np.floating]) -> Floats:
        y: Floats = x.astype(np.float64) @ self.weight + self.bias
        return y

    def bound(self, error: float) -> Floats:
        """(C,) how far numbers may be off where those of ``x`` are off by ``error``."""
        largest: Floats = np.abs(self.weight).sum(0) + np.abs(self.bias)
        return error * largest


@dataclass(frozen=True, slots=True, eq=False)
class ContentMap:
    """A map, as its file has it."""

    about: MapAbout
    parts: Mapping[tuple[str, ...], Affine]  # by modalities, in the order of ``about.inputs``
    mean: Floats  # (C,) of the feature over the items that the map was fitted to
    scale: Floats  # (C,) standard deviations
    digest: str = ""  # SHA-256 of the file

    @property
    def of_text(self) -> Affine:
        """The part for items that have texts alone."""
        return self.parts[(TEXT,)]

    def fitting(self, has: Collection[str]) -> tuple[str, ...] | None:
        """Return the largest combination that the map has a part for, among what an item has."""
        possible = [each for each in self.parts if set(each) <= set(has)]
        return max(possible, key=len, default=None)

    def content(self, vectors: Mapping[str, NDArray[np.floating]]) -> Floats:
        """Map items (N, X) that have these modalities, one of the map's combinations."""
        has = tuple(name for name in self.about.inputs if name in vectors)
        return self.parts[has](np.concatenate([vectors[name] for name in has], axis=1))

    def of_item(
        self,
        texts: NDArray[np.floating],
        contents: NDArray[np.floating] | None,
        given: Mapping[str, NDArray[np.floating]],
    ) -> Floats | None:
        """Return the content (C,) of an item; None if no part fits what it has.

        ``texts``: unit vectors (T, D) of its texts, none or more; ``contents``: theirs, (T, C), if
        the encoder's graph has given them.
        """
        modalities = ([TEXT] if len(texts) else []) + list(given)
        combination = self.fitting(modalities)
        if combination is None:
            return None
        if combination == (TEXT,) and contents is not None:
            mean: Floats = contents.astype(np.float64).mean(0)
            return mean
        vectors = dict(given)
        if TEXT in combination:
            vectors[TEXT] = texts.astype(np.float64).mean(0)
        found: Floats = self.content({name: vectors[name][None] for name in combination})[0]
        return found

    def check(self, network: str, width: int, source: object) -> None:
        """Raise BundleError for a map of another encoder."""
        if self.about.network != network or self.about.inputs.get(TEXT) != width:
            raise BundleError(f"{source}: fitted to the vectors of another encoder; {REFIT}")

    def encoded(self) -> bytes:
        """Return the file: the same bytes for the same map."""
        stream = io.BytesIO()
        arrays = {
            "about": np.frombuffer(self.about.model_dump_json().encode(), np.uint8),
            "weights": np.concatenate([part.weight for part in self.parts.values()]),
            "biases": np.stack([part.bias for part in self.parts.values()]),
            "mean": self.mean,
            "scale": self.scale,
        }
        np.savez_compressed(stream, allow_pickle=False, **arrays)
        return stream.getvalue()

    @classmethod
    def load(cls, path: Path) -> ContentMap:
        """Read a map within bounds. Raises BundleError."""
        try:
            content = plain_files.read(path, MOST_BYTES)
            if not content.startswith(ZIP):
                raise BundleError(f"{path}: not a content map: no npz file; {REFIT}")
            names = ("about", "weights", "biases", "mean", "scale")
            arrays = npz.read(path, names, MOST_BYTES)
            digest = hashlib.sha256(content).hexdigest()
            return cls._of(arrays, digest)
        except ValidationError as error:
            raise BundleError(f"{path}: {worded(error)[:400]}; {REFIT}") from None
        except UNREADABLE as error:
            raise BundleError(f"{path}: not a content map: {said(error)}; {REFIT}") from error

    @classmethod
    def _of(cls, arrays: Mapping[str, NDArray[Any]], digest: str) -> ContentMap:
        about = MapAbout.model_validate_json(arrays["about"].tobytes())
        weights, biases, mean, scale = (
            arrays[name] for name in ("weights", "biases", "mean", "scale")
        )
        numbers = (weights, biases, mean, scale)
        if any(a.dtype != np.float64 or not np.isfinite(a).all() for a in numbers):
            raise ValueError("arrays of unexpected types or numbers")
        rows = [sum(about.inputs[name] for name in part.has) for part in about.parts]
        shapes = [(sum(rows), about.size), (len(rows), about.size), (about.size,), (about.size,)]
        if [a.shape for a in numbers] != shapes:
            raise ValueError("arrays of unexpected shapes")
        split = np.split(weights, np.cumsum(rows)[:-1])
        each = zip(about.parts, split, biases, strict=True)
        parts = {part.has: Affine(weight, bias) for part, weight, bias in each}
        if (TEXT,) not in parts:
            raise ValueError("no part for texts alone")
        return cls(about, parts, mean, scale, digest)


def network_digest(weights_sha256: str, tokenizer_sha256: str) -> str:
    """Digest of a network and its tokenizer: the same for every bundle of one checkpoint."""
    return hashlib.sha256(f"{weights_sha256}\n{tokenizer_sha256}\n".encode()).hexdigest()


def content_digest(network: str, content_map: str) -> str:
    """Digest that content carries: of its encoder (``network_digest``) and the file of its map."""
    return hashlib.sha256(f"{network}\n{content_map}\n".encode()).hexdigest()[:DIGITS]
