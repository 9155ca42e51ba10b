"""Opens the encoder's bundle: a verified copy of this machine, as for models."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model_export.bundle.errors import BundleError, ParityError
from service.artifacts import sandbox
from service.artifacts.importer import BundleKind, ImportPolicy, import_kind
from service.artifacts.local_copies import LocalCopies
from service.artifacts.sandbox import SandboxLimits
from service.observability.logs import logger
from service.settings import Settings
from text.runtime.bundle import REBUILD, EncoderBundle, parse_manifest
from text.runtime.cache import VectorCache
from text.runtime.encoder import TextEncoder
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import GOLDEN

WARMING = 8  # golden texts that are encoded in this process, the shortest
KIND = BundleKind(parse_manifest, EncoderBundle, EncoderBundle.open)


class EncoderStopped(Exception):
    """Loading was stopped because the service ends."""


@dataclass(slots=True)
class EncoderLoader:
    """Loads the encoder that the settings name."""

    folder: Path
    settings: Settings
    policy: ImportPolicy
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def load(self) -> TextEncoder:
        """Copy, check and verify the bundle, then open it. BundleError. Blocks."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its own threads would not yield to scoring
        settings, folder = self.settings, self.folder.resolve()
        copies = LocalCopies(settings.private / "encoders", folder.parent)
        copies.prepare()
        try:
            bundle, copy, signer = import_kind(KIND, folder, copies, self.policy)
            kind = sandbox.encoder()
            if not sandbox.is_proved(bundle, kind):
                self._prove(bundle, kind)
                copies.know(copy)
                sandbox.note_proved(bundle, kind)
            encoder = TextEncoder(bundle, cache=VectorCache(settings.encoder_cache_mb << 20))
            _warm(encoder)
        except BundleError as error:
            raise BundleError(copies.as_published(str(error), folder.parent)) from error
        copies.remove_others([copy.digest])
        logger.info("encoder", version=bundle.version, digest=bundle.digest, signer=signer)
        return encoder

    def stop(self) -> None:
        """Make a load that is under way end soon."""
        self._stopped = True
        if (child := self._child) is not None:
            child.kill()

    def _prove(self, bundle: EncoderBundle, kind: sandbox.Kind) -> None:
        settings = self.settings
        limits = SandboxLimits(settings.inspection_memory_mb << 20, settings.inspection_s)
        self._child = sandbox.start(bundle, limits, 0, kind)
        if self._stopped:
            self._child.kill()
        try:
            sandbox.wait_for_verdict(bundle, self._child, limits, kind)
        except BundleError:
            if self._stopped:
                raise EncoderStopped from None
            raise
        finally:
            self._child = None


def _warm(encoder: TextEncoder) -> None:
    """Compare a few golden texts in this process: another library could be loaded here."""
    golden = GoldenTexts.load(encoder.bundle.path / GOLDEN)
    shortest = np.argsort(golden.tokens, kind="stable")[:WARMING]
    found = encoder.encode([golden.texts[i] for i in shortest.tolist()]).vectors
    error = float(np.abs(found - golden.vectors[shortest]).max())
    tolerance = encoder.manifest.parity.tolerance
    if not error <= tolerance:
        raise ParityError(
            f"{encoder.bundle.path}: golden answers: a vector differs by {error:.3g}, at most "
            f"{tolerance:.3g} is allowed; {REBUILD}"
        )
