"""Parses and formats times with units."""

from __future__ import annotations

import re

SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
TIME = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m|h)\s*$")


def seconds(text: str) -> float:
    """Parse ``250us``, ``25ms``, ``1.5s``, ``2m`` or ``1h``; ValueError for anything else."""
    match = TIME.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time: write 250us, 25ms, 1.5s, 2m or 1h")
    return float(match[1]) * SECONDS[match[2]]


def human(value: float) -> str:
    """Format seconds as s, ms or µs, with three digits; NaN as –."""
    if value != value:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"
