"""Loads encoders: verified copies of this machine, proved in a child, as models are."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from model_export.bundle.errors import BundleError, ParityError
from service.artifacts import sandbox
from service.artifacts.importer import BundleKind, ImportPolicy, import_kind
from service.artifacts.local_copies import LocalCopies
from service.artifacts.sandbox import SandboxLimits
from service.encoding.repository import EncoderRepository, FoundEncoder
from service.observability.logs import logger
from service.settings import Settings
from text.runtime.bundle import REBUILD, EncoderBundle, parse_manifest
from text.runtime.cache import VectorCache
from text.runtime.encoder import TextEncoder
from text.runtime.golden import GoldenTexts
from text.runtime.manifest import GOLDEN
from text.runtime.packed_graph import Call, here

WARMING = 8  # golden texts that are encoded in this process, the shortest
KIND = BundleKind(parse_manifest, EncoderBundle, EncoderBundle.open, REBUILD)


class Run(Protocol):
    """Runs work in a thread of the loader's choice."""

    def __call__(self, work: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]: ...


class EncoderLoader:
    """Loads each encoder once, for all versions that need it: it is kept in memory by them alone.

    Concurrent loads are the caller's to prevent.
    """

    def __init__(
        self, path: Path, settings: Settings, policy: ImportPolicy, through: Call = here
    ) -> None:
        """``through`` is what calls the graphs of its encoders."""
        self.repository = EncoderRepository(path)
        self._settings, self._policy, self._through = settings, policy, through
        self._copies = LocalCopies(settings.private / "encoders", self.repository.encoders)
        self._cache = VectorCache(settings.encoder_cache_mb << 20)
        self._in_memory: WeakValueDictionary[str, TextEncoder] = WeakValueDictionary()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    async def find(self, content: str | None) -> FoundEncoder:
        """Find the encoder of contents of this digest; None: the newest. NotYet."""
        return await asyncio.to_thread(self.repository.find, content)

    def bytes_of(self, found: FoundEncoder) -> int:
        """Bytes that loading it will take."""
        loaded = {each.bundle.version for each in self._in_memory.values()}
        return 0 if found.manifest.version in loaded else found.size

    async def load(
        self, found: FoundEncoder, run: Run = asyncio.to_thread, niceness: int = 0
    ) -> TextEncoder:
        """Copy, check and prove a bundle, then open it, unless it is in memory. BundleError.

        ``run`` is given all that takes long; ``niceness`` is that of the child.
        """
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its own threads would not yield to scoring
        folder, copies = found.folder, self._copies
        try:
            await run(copies.prepare)
            bundle, copy, signer = await run(import_kind, KIND, folder, copies, self._policy)
            known = self._in_memory.get(copy.digest)
            if known is not None:
                return known
            kind = sandbox.encoder()
            if not await run(sandbox.is_proved, bundle, kind):
                await self._prove(bundle, kind, run, niceness)
                await run(copies.know, copy)
                await run(sandbox.note_proved, bundle, kind)
            encoder: TextEncoder = await run(self._open, bundle)
        except BundleError as error:
            raise BundleError(copies.as_published(str(error), folder.parent)) from error
        self._in_memory[copy.digest] = encoder
        await run(copies.remove_others, list(self._in_memory))
        logger.info("encoder", version=bundle.version, digest=bundle.digest, signer=signer)
        return encoder

    def stop(self) -> None:
        """Make a load that is under way end soon."""
        self._stopped = True
        if (child := self._child) is not None:
            child.kill()

    @property
    def loaded(self) -> int:
        """Encoders in memory."""
        return len(self._in_memory)

    async def _prove(
        self, bundle: EncoderBundle, kind: sandbox.Kind, run: Run, niceness: int
    ) -> None:
        limits = SandboxLimits(
            self._settings.inspection_memory_mb << 20, self._settings.inspection_s
        )
        # From a thread of normal priority: see ``sandbox.start``.
        self._child = await asyncio.to_thread(sandbox.start, bundle, limits, niceness, kind)
        if self._stopped:
            self._child.kill()
        try:
            await run(sandbox.wait_for_verdict, bundle, self._child, limits, kind)
        finally:
            self._child.kill()  # if the load was cancelled
            self._child = None

    def _open(self, bundle: EncoderBundle) -> TextEncoder:
        encoder = TextEncoder(bundle, cache=self._cache, through=self._through)
        _warm(encoder)
        return encoder


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
