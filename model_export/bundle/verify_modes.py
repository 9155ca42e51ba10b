"""Verifies a bundle, then chooses the mode that serves it best on this machine."""

from __future__ import annotations

from pathlib import Path

from model_export.bundle.bundle import Bundle
from model_export.bundle.golden import Difference
from model_export.bundle.modes import Choice, choose
from model_export.bundle.sessions import ProviderChoice
from model_export.bundle.verify import verify as verify_on_cpu


def verify(
    path: Path | str, provider: ProviderChoice, rows: str
) -> tuple[Bundle, Difference, Choice]:
    """Verify as ``verify.verify`` does, and choose as ``modes.choose`` does. BundleError."""
    bundle, difference = verify_on_cpu(path)
    return bundle, difference, choose(bundle, provider, int(rows))
