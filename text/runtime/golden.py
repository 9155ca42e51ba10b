"""Golden answers: texts of every length class and the vectors of PyTorch in float64."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from model_export.bundle import npz
from model_export.bundle.errors import BundleError, said
from text.runtime.bundle import REBUILD

MOST_BYTES, MOST_TEXTS = 64 << 20, 4096
UNREADABLE = (OSError, EOFError, TypeError, ValueError, KeyError, RuntimeError, BadZipFile)


@dataclass(frozen=True, slots=True)
class Difference:
    """The worst error of a text's vector against its golden answer."""

    max_abs_error: float  # NaN counts as infinite
    worst_case: str
    cases: int
    content_error: float | None = None  # of a number of content, where there is a map to it


@dataclass(frozen=True, slots=True, eq=False)
class GoldenTexts:
    """Text i is UTF-8 in ``text[offsets[i]:offsets[i + 1]]``."""

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]  # (N + 1,)
    tokens: NDArray[np.int64]  # (N,) with special tokens
    vectors: NDArray[np.float64]  # (N, D), unit length
    content: NDArray[np.float64] | None = None  # (N, C), where the bundle has a map to it

    @classmethod
    def of(
        cls, texts: list[str], tokens: NDArray[np.int64], vectors: NDArray[np.float64]
    ) -> GoldenTexts:
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets, tokens, vectors)

    @property
    def texts(self) -> list[str]:
        content = self.text.tobytes()
        spans = zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)
        return [content[start:stop].decode() for start, stop in spans]

    def compare(self, vectors: NDArray[np.float32]) -> Difference:
        """Compare vectors (N, D) with the golden ones."""
        errors = np.abs(vectors.astype(np.float64) - self.vectors).max(1)
        errors = np.where(np.isnan(errors), np.inf, errors)
        worst = int(errors.argmax())
        return Difference(
            float(errors[worst]), f"text {worst}, {self.tokens[worst]:,} tokens", len(errors)
        )

    def save(self, path: Path) -> None:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.content is None:
            del arrays["content"]
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> GoldenTexts:
        """Read golden answers within bounds. Raises BundleError."""
        try:
            names = [field.name for field in fields(cls)]
            golden = cls(**npz.read(path, names, MOST_BYTES, frozenset({"content"})))
            golden._check()
        except (*UNREADABLE, ZlibError) as error:
            raise BundleError(
                f"{path}: golden answers cannot be read: {said(error)}; {REBUILD}"
            ) from error
        return golden

    def _check(self) -> None:
        """Raise ValueError for arrays that do not fit each other."""
        count = len(self.tokens)
        if not 0 < count <= MOST_TEXTS:
            raise ValueError(f"{count:,} texts")
        shapes = (self.text.ndim, self.offsets.shape, self.tokens.shape, self.vectors.shape[:-1])
        if shapes != (1, (count + 1,), (count,), (count,)):
            raise ValueError("arrays of unexpected shapes")
        kinds = [array.dtype.kind for array in (self.text, self.offsets, self.tokens, self.vectors)]
        if kinds != ["u", "i", "i", "f"] or not np.isfinite(self.vectors).all():
            raise ValueError("arrays of unexpected types or numbers")
        content = np.zeros((count, 0)) if self.content is None else self.content
        if content.shape[:-1] != (count,) or not np.isfinite(content).all():
            raise ValueError("content of unexpected shape or numbers")
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if ends != (0, len(self.text)) or (np.diff(self.offsets) < 1).any():
            raise ValueError("offsets that do not fit the texts")
        _ = self.texts  # UTF-8
