"""Brings one version at a time from the models folder into memory, in one background thread."""

from __future__ import annotations

import asyncio
import platform
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import onnxruntime

from model_export.bundle import plain_files
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from service.artifacts import sandbox as inspection
from service.artifacts.importer import ImportedBundle, ImportPolicy, import_bundle, reopen_copy
from service.artifacts.local_copies import Copy, PrivateFolder, write
from service.artifacts.sandbox import SandboxLimits
from service.engine.niceness import LOWEST, add_niceness
from service.lifecycle.execution import Execution
from service.lifecycle.load_steps import LoadOptions, Progress, Stopped, load
from service.lifecycle.model_entry import State
from service.models.registry import LoadedModel

P = ParamSpec("P")
T = TypeVar("T")
MOST_PROVED_BYTES = 4096
PROVED = "proved"  # beside a copy: by which runtime on what machine it was found harmless


class Loader:
    """The thread, and the child process while there is one."""

    def __init__(
        self,
        private: PrivateFolder,
        policy: ImportPolicy,
        limits: SandboxLimits,
        store: str,
        tables: Path | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.private, self.policy, self.limits, self._store = private, policy, limits, store
        self._tables, self._execution = tables, execution or Execution()
        self._quiet = ThreadPoolExecutor(
            1, thread_name_prefix="loader", initializer=add_niceness, initargs=(LOWEST,)
        )
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    async def import_bundle(self, source: Path | Copy, *, hurried: bool = False) -> ImportedBundle:
        """From the models folder, or a copy taken in before. BundleError says why not."""
        step = reopen_copy if isinstance(source, Copy) else import_bundle
        return await self._run(hurried, step, source, self.private, self.policy)  # type: ignore[arg-type]

    async def load(
        self,
        imported: ImportedBundle,
        progress: Progress,
        shapes: list[tuple[int, int]],
        most_items: int,
        *,
        opened: Callable[[LoadedModel], None] = lambda _: None,
        hurried: bool = False,
    ) -> LoadedModel:
        """Prove it in a child, then load it. ``hurried``: nobody is being answered yet."""
        if not self._is_proved(imported):
            progress.enter(State.LOADING, "inspecting it in a child process")
            # Not in the quiet thread: see ``inspection.begin``.
            niceness = 0 if hurried else LOWEST
            self._child = await asyncio.to_thread(
                inspection.begin, imported.bundle, self.limits, niceness
            )
            try:
                await self._run(
                    hurried, inspection.verdict, imported.bundle, self._child, self.limits
                )
            finally:
                self._child = None
            if self._stop.is_set():
                raise Stopped
            await self._run(hurried, self._note_proved, imported)
        options = LoadOptions(
            self._store, most_items, shapes, self._stop, self._tables, self._execution, opened
        )
        return await self._run(hurried, load, imported.bundle, options, progress)

    async def close(self) -> None:
        """End what is under way."""
        self._stop.set()
        if self._child is not None:
            self._child.kill()
        await asyncio.to_thread(self._quiet.shutdown)

    async def _run(
        self, hurried: bool, work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs
    ) -> T:
        if hurried:
            return await asyncio.to_thread(work, *arguments, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._quiet, lambda: work(*arguments, **named))

    def _is_proved(self, imported: ImportedBundle) -> bool:
        ours = _this_machine().encode()
        try:
            return plain_files.read(self._marker(imported.bundle), MOST_PROVED_BYTES) == ours
        except (OSError, BundleError):  # missing or damaged: it is proved once more
            return False

    def _note_proved(self, imported: ImportedBundle) -> None:
        self.private.know(imported.copy)
        write(self._marker(imported.bundle), _this_machine().encode())

    @staticmethod
    def _marker(bundle: Bundle) -> Path:
        return bundle.path.parent / PROVED


def _this_machine() -> str:
    return f"onnxruntime {onnxruntime.__version__} on {platform.machine()}\n"
