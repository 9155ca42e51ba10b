"""Has a bundle opened, and its golden questions asked, in a child process with limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson

import service
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from service.observability.logs import logger

ROOT = Path(service.__file__).parents[1]
WALL_FACTOR = 10  # it may run at the lowest priority: wall time can be far beyond its own
BYTES_PER_BUNDLE_BYTE = 3  # mapped, read in, prepacked
DO_NOT_SERVE = "do not serve this bundle: rebuild it with `python -m model_export build`"


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    memory_bytes: int  # beside a multiple of the bundle's own size
    cpu_seconds: int


def begin(bundle: Bundle, limits: SandboxLimits, niceness: int) -> subprocess.Popen[bytes]:
    """Start the child, ``niceness`` below this process. Call it from a thread of normal priority:
    until the child has replaced itself by its program, the interpreter is held."""
    size = sum(record.size for record in bundle.manifest.files.values())
    memory = limits.memory_bytes + BYTES_PER_BUNDLE_BYTE * size
    arguments = (bundle.path, memory, limits.cpu_seconds, niceness)
    # Neither our secrets nor our settings, nor a look through the site's folders (PYTHONPATH has
    # them all); one thread, so that little address space is reserved.
    environment = {
        "PATH": os.defpath,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.Popen(  # noqa: S603 — our own module, no shell
        [sys.executable, "-S", "-P", "-m", "service.artifacts.sandbox_child", *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def verdict(bundle: Bundle, child: subprocess.Popen[bytes], limits: SandboxLimits) -> None:
    """Wait for what the child says. BundleError unless the bundle is proved."""
    try:
        said, complaint = child.communicate(timeout=WALL_FACTOR * limits.cpu_seconds)
    except subprocess.TimeoutExpired:
        raise BundleError(_too_long(bundle, WALL_FACTOR * limits.cpu_seconds)) from None
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    if child.returncode == -signal.SIGXCPU or (child.returncode == -signal.SIGKILL and not said):
        raise BundleError(_too_long(bundle, limits.cpu_seconds))
    try:
        found = orjson.loads(said)
    except orjson.JSONDecodeError:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise BundleError(
            f"{bundle.path}: it ended the process that inspected it (exit {child.returncode}): "
            f"{last or 'nothing said'}; {DO_NOT_SERVE}"
        ) from None
    if not found["proved"]:
        raise BundleError(f"{bundle.path}: refused by inspection: {found['reason']}")
    logger.info(
        "inspected",
        model_version=bundle.version,
        golden_answers=found["cases"],
        max_abs_error=found["max_abs_error"],
    )


def _too_long(bundle: Bundle, seconds: float) -> str:
    return (
        f"{bundle.path}: its golden answers took more than {seconds:g} s (QIN_INSPECTION_S), or "
        f"never end; {DO_NOT_SERVE}"
    )
