"""Verifies a bundle in a child process: ``python -m service.artifacts.sandbox_child``.

A graph is third-party code. It runs here with limits on memory and processor time and without
permission to write files. The verdict, of all golden answers, is one line of JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def confine(
    memory_bytes: int, cpu_seconds: int | None, niceness: int, memory: int = resource.RLIMIT_AS
) -> None:
    """Limit this process, before the bundle is opened. ``memory``: which limit bounds it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the service
    with suppress(OSError):  # refused: then it runs at the service's own priority
        os.nice(niceness)
    limit(memory, memory_bytes)
    if cpu_seconds is not None:
        limit(resource.RLIMIT_CPU, cpu_seconds)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)


def limit(resource_: int, most: int) -> None:
    """Lower a limit to ``most``, or to the hard limit if that is lower."""
    _, hard = resource.getrlimit(resource_)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource_, (least, least))


def main(
    path: str, memory_bytes: str, cpu_seconds: str, niceness: str, module: str, *arguments: str
) -> None:
    confine(int(memory_bytes), int(cpu_seconds), int(niceness))
    import orjson

    from model_export.bundle.errors import BundleError, ParityError, said

    verdict: dict[str, object]
    try:
        _, difference, *choice = importlib.import_module(module).verify(path, *arguments)
        verdict = {
            "proved": True,
            "max_abs_error": difference.max_abs_error,
            "cases": difference.cases,
            "choice": choice[0] if choice else None,
        }
    except ParityError as error:
        verdict = {"proved": False, "reason": f"golden answers: {error}"}
    except (BundleError, MemoryError) as error:
        verdict = {"proved": False, "reason": str(error) or "out of memory"}
    except Exception as error:  # onnxruntime's errors have no other common base
        verdict = {"proved": False, "reason": f"error while running: {said(error)}"}
    verdict["niceness"] = os.getpriority(os.PRIO_PROCESS, 0)
    sys.stdout.buffer.write(orjson.dumps(verdict) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
