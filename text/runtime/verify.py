"""Verifies that an encoder bundle answers on this machine as its network did, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError, ParityError, said
from model_export.bundle.signature import PublicKeys
from text.runtime.bundle import REBUILD, EncoderBundle
from text.runtime.encoder import TextEncoder
from text.runtime.golden import Difference, GoldenTexts
from text.runtime.manifest import GOLDEN, INT8


def verify(path: Path | str, keys: PublicKeys | None = None) -> tuple[EncoderBundle, Difference]:
    """Verify signature (with keys) and digests, then golden answers. Raises BundleError."""
    encoder = TextEncoder.open(path, keys=keys)
    golden = GoldenTexts.load(encoder.bundle.path / GOLDEN)
    difference = check_golden(encoder, golden)
    if INT8 in encoder.manifest.graphs:
        _check_int8_runs(encoder.bundle, golden)
    return encoder.bundle, difference


def _check_int8_runs(bundle: EncoderBundle, golden: GoldenTexts) -> None:
    """Check that int8 gives vectors. Its accuracy is the gate's matter, at the build."""
    try:
        TextEncoder(bundle, precision="int8").encode(golden.texts)
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(f"{bundle.graph(INT8)}: fails on golden texts: {said(error)}") from error


def check_golden(encoder: TextEncoder, golden: GoldenTexts) -> Difference:
    """Encode every golden text, together and alone. Raises ParityError beyond the tolerance."""
    bundle, tolerance = encoder.bundle, encoder.manifest.parity.tolerance
    texts = golden.texts
    if golden.vectors.shape[1] != encoder.width:
        raise BundleError(f"{bundle.path / GOLDEN}: vectors of another width; {REBUILD}")
    try:
        encoded = encoder.encode(texts)
        each = [encoder.encode([text]) for text in texts]
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise BundleError(f"{bundle.path}: fails on golden texts: {said(error)}") from error
    if (encoded.tokens != golden.tokens).any():
        i = int(np.flatnonzero(encoded.tokens != golden.tokens)[0])
        raise ParityError(
            f"{bundle.path}: golden text {i} has {encoded.tokens[i]} tokens here and "
            f"{golden.tokens[i]} at the build: another tokenizer or tokenizers library; {REBUILD}"
        )
    alone = np.concatenate([one.vectors for one in each])
    worst = max(
        (golden.compare(vectors) for vectors in (encoded.vectors, alone)),
        key=lambda difference: difference.max_abs_error,
    )
    if not worst.max_abs_error <= tolerance:
        raise ParityError(
            f"{bundle.path}: a vector on this machine differs from the network's by "
            f"{worst.max_abs_error:.3g} (at most {tolerance:.3g} is allowed); worst case: "
            f"{worst.worst_case}; do not use it here: rebuild the bundle, and report the "
            "processor and the onnxruntime version if that does not help"
        )
    if encoder.content_map is None:
        return worst
    apart = [one.content for one in each if one.content is not None]
    contents = (encoded.content, np.concatenate(apart))
    largest = max(_content_error(encoder, golden, content) for content in contents)
    return replace(worst, content_error=largest)


def _content_error(
    encoder: TextEncoder, golden: GoldenTexts, content: NDArray[np.float32] | None
) -> float:
    """Return the largest error of content (N, C). Raises ParityError beyond its bound.

    The bound is what the vectors' tolerance becomes by the map: it times Σ|w| + |b| of a number.
    """
    path, content_map = encoder.bundle.path, encoder.content_map
    if golden.content is None or content is None or content_map is None:
        raise BundleError(f"{path / GOLDEN}: no content of the golden texts; {REBUILD}")
    if golden.content.shape != content.shape:
        raise BundleError(f"{path / GOLDEN}: content of another width; {REBUILD}")
    errors = np.abs(content - golden.content)  # (N, C)
    most = content_map.of_text.bound(encoder.manifest.parity.tolerance)
    within = errors <= most  # false for NaN
    if not within.all():
        text, number = np.argwhere(~within)[0].tolist()
        raise ParityError(
            f"{path}: number {number} of golden text {text}'s content differs from the map's in "
            f"float64 by {errors[text, number]:.3g} (at most {most[number]:.3g} is allowed); "
            f"{REBUILD}"
        )
    return float(errors.max())
