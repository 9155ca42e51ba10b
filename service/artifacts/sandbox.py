"""Verifies a bundle's golden answers in a child process with limits (``sandbox_child``)."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Protocol

import onnxruntime
import orjson

import service
from model_export.bundle import openvino, plain_files
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import FileRecord
from model_export.bundle.sessions import ProviderChoice
from service.artifacts.persisted_state import write_durably
from service.observability.logs import logger

ROOT = Path(service.__file__).parents[1]
WALL_FACTOR = 10  # wall time per processor time, for a child at the lowest priority
BYTES_PER_BUNDLE_BYTE = 3  # mapped, read in, prepacked
PROVED = "proved"  # file next to a copy: what it was verified with
MACHINE = f"onnxruntime {onnxruntime.__version__} on {platform.machine()}\n".encode()
MOST_PROVED_BYTES = 4096


class _Files(Protocol):
    @property
    def files(self) -> Mapping[str, FileRecord]: ...


class AnyBundle(Protocol):
    """A bundle of a model or of an encoder."""

    @property
    def path(self) -> Path: ...

    @property
    def version(self) -> str: ...

    @property
    def manifest(self) -> _Files: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """How bundles of a kind are verified."""

    module: str  # its ``verify`` is given a bundle's folder and the arguments
    build: str  # the command that makes such bundles
    machine: bytes  # what their answers depend on
    arguments: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        return f"do not serve this bundle: rebuild it with `{self.build}`"


MODEL = Kind("model_export.bundle.verify", "python -m model_export build", MACHINE)


def encoder() -> Kind:
    """The kind of encoders, whose answers depend on the tokenizer's library, too."""
    tokenizers = f"tokenizers {version_of('tokenizers')}\n".encode()
    return Kind("text.runtime.verify", "python -m text build", MACHINE + tokenizers)


def on_openvino() -> Kind:
    """The kind of models that are to run on OpenVINO, too."""
    plugin = f"openvino plugin {openvino.release()}\n".encode()
    return Kind("model_export.bundle.verify_openvino", MODEL.build, MACHINE + plugin)


def with_modes(provider: ProviderChoice, rows: int) -> Kind:
    """The kind of models whose fastest mode is measured, too, on lists of ``rows`` candidates."""
    module, arguments = "model_export.bundle.verify_modes", (provider, str(rows))
    return Kind(module, MODEL.build, MACHINE, arguments)


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    memory_bytes: int  # in addition to a multiple of the bundle's size
    cpu_seconds: int


def start(
    bundle: AnyBundle, limits: SandboxLimits, niceness: int, kind: Kind = MODEL
) -> subprocess.Popen[bytes]:
    """Start the child, ``niceness`` below this process's priority.

    Call it from a thread of normal priority: the GIL is held until the child has called ``exec``.
    """
    memory = memory_limit(bundle, limits.memory_bytes)
    arguments = (bundle.path, memory, limits.cpu_seconds, niceness, kind.module, *kind.arguments)
    return start_python("service.artifacts.sandbox_child", arguments)


def start_python(
    module: str,
    arguments: Iterable[object],
    *,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
    pass_fds: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a module of ours in a child process that has no secrets and no settings of ours.

    Call it from a thread of normal priority: see ``start``.
    """
    # ``-S`` with a full PYTHONPATH skips the scan of site-packages; one thread keeps the reserved
    # address space small.
    environment = {
        "PATH": os.defpath,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(  # noqa: S603 — our own module, no shell
        [sys.executable, "-S", "-P", "-m", module, *map(str, arguments)],
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
    )


def memory_limit(bundle: AnyBundle, more: int) -> int:
    """Bytes that a process which runs a bundle's graphs may take, ``more`` besides its files."""
    size = sum(record.size for record in bundle.manifest.files.values())
    return more + BYTES_PER_BUNDLE_BYTE * size


def wait_for_verdict(
    bundle: AnyBundle, child: subprocess.Popen[bytes], limits: SandboxLimits, kind: Kind = MODEL
) -> object:
    """Block until the child ends; return what it chose, if it had to. BundleError unless it
    verified the bundle."""
    try:
        output, errors = child.communicate(timeout=WALL_FACTOR * limits.cpu_seconds)
    except subprocess.TimeoutExpired:
        raise BundleError(_too_long(bundle, WALL_FACTOR * limits.cpu_seconds, kind)) from None
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    if child.returncode == -signal.SIGXCPU or (child.returncode == -signal.SIGKILL and not output):
        raise BundleError(_too_long(bundle, limits.cpu_seconds, kind))
    try:
        verdict = orjson.loads(output)
    except orjson.JSONDecodeError:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise BundleError(
            f"{bundle.path}: it ended the process that inspected it (exit {child.returncode}): "
            f"{last or 'no message'}; {kind.remedy}"
        ) from None
    if not verdict["proved"]:
        raise BundleError(f"{bundle.path}: refused by inspection: {verdict['reason']}")
    logger.info(
        "inspected",
        model_version=bundle.version,
        golden_answers=verdict["cases"],
        max_abs_error=verdict["max_abs_error"],
    )
    return verdict.get("choice")


def is_proved(bundle: AnyBundle, kind: Kind = MODEL) -> bool:
    """Whether this copy was verified before, by this runtime on this type of machine."""
    try:
        return plain_files.read(bundle.path.parent / PROVED, MOST_PROVED_BYTES) == kind.machine
    except (OSError, BundleError):  # missing or damaged
        return False


def note_proved(bundle: AnyBundle, kind: Kind = MODEL) -> None:
    write_durably(bundle.path.parent / PROVED, kind.machine)


def _too_long(bundle: AnyBundle, seconds: float, kind: Kind) -> str:
    return (
        f"{bundle.path}: its golden answers took more than {seconds:g} s (QIN_INSPECTION_S), or "
        f"never end; {kind.remedy}"
    )
