"""Records what a result was measured with: machine, packages, command line and settings."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtest.generator.runner import Load


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
        "packages": {
            name: metadata.version(name) for name in ("numpy", "httptools", "hdrhistogram")
        },
    }


SECRET = ("--api-key", "--events-key", "--admin-token", "--header")  # options that may hold one


def command() -> str:
    """Return the command line, quoted for a shell; values of ``SECRET`` options are elided."""
    arguments = _without_secrets(sys.argv[1:])
    if Path(sys.argv[0]).name == "__main__.py":
        return shlex.join(["python", "-m", "loadtest", *arguments])
    return shlex.join([Path(sys.argv[0]).name, *arguments])


def _without_secrets(arguments: Sequence[str]) -> list[str]:
    shown, hide = list[str](), False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        shown.append("…" if hide else f"{option}=…" if equals and option in SECRET else argument)
        hide = not hide and argument in SECRET
    return shown


def provenance(load: Load, started: datetime | None = None) -> dict[str, Any]:
    """Return what a result was measured with: settings, machine, command line and time."""
    return {
        "settings": describe(load),
        "environment": machine(),
        "command": command(),
        "started": (started or datetime.now(UTC)).isoformat(timespec="seconds"),
    }


def describe(load: Load) -> dict[str, Any]:
    """Return the settings of a run for JSON; headers by name only, as values may be secret."""
    content = asdict(load)
    content["arrivals"] = str(load.arrivals)
    content["replay"] = str(load.replay) if load.replay else None
    content["workload"]["headers"] = sorted(load.workload.headers)
    del content["api_key"], content["events_key"]
    return content


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
