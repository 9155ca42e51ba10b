"""Follows a run: candidates done, their rate, the time left; on a terminal, as JSON, as metrics."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import typer

from batch.output.folder import put_file
from batch.output.stdout import stdout

EVERY_S = 1.0
METRICS: dict[str, tuple[str, str]] = {
    "qin_batch_candidates_total": ("candidates_all", "Candidates of the run."),
    "qin_batch_candidates_done": ("candidates", "Candidates scored so far."),
    "qin_batch_parts_total": ("parts_all", "Parts of the output."),
    "qin_batch_parts_done": ("parts", "Parts written so far."),
    "qin_batch_candidates_per_second": ("rate", "Candidates scored per second of this process."),
    "qin_batch_left_seconds": ("left_s", "Estimated time left; NaN if it is not known."),
    "qin_batch_workers": ("workers", "Worker processes."),
    "qin_batch_complete": ("complete", "1 once the manifest is written."),
}


class Progress:
    """Counts of a run. ``as_json``: events go to stdout, a JSON line each."""

    def __init__(self, *, as_json: bool = False, metrics: Path | None = None) -> None:
        self._as_json, self._metrics = as_json, metrics
        self._terminal = sys.stderr.isatty() and not as_json
        self._began = self._told = monotonic()
        self._before = 0  # candidates that earlier runs have scored
        self.values: dict[str, float] = dict.fromkeys((key for key, _ in METRICS.values()), 0)

    def begin(
        self, *, candidates: int, done: int, parts: int, parts_done: int, workers: int
    ) -> None:
        """Begin to count time; ``done`` candidates were scored by earlier runs."""
        self._began, self._before = monotonic(), done
        self.values |= {
            "candidates_all": candidates,
            "candidates": done,
            "parts_all": parts,
            "parts": parts_done,
            "workers": workers,
        }
        self.event("begin", self.values)
        self.write()

    def advance(self, *, candidates: int = 0, parts: int = 0) -> None:
        """Count what a worker has done."""
        values, now = self.values, monotonic()
        values["candidates"] += candidates
        values["parts"] += parts
        scored = values["candidates"] - self._before
        values["rate"] = scored / max(1e-9, now - self._began)
        left = values["candidates_all"] - values["candidates"]
        values["left_s"] = left / values["rate"] if values["rate"] else float("nan")
        if now - self._told >= EVERY_S or values["parts"] == values["parts_all"]:
            self._told = now
            self.event("progress", values)
            self._say()
            self.write()

    def complete(self) -> None:
        self.values |= {"complete": 1, "left_s": 0}
        self.write()
        if self._terminal:
            typer.echo("", err=True)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Print an event, where they are asked for."""
        if self._as_json:
            with stdout():
                print(orjson.dumps({"event": name, **fields}).decode())

    def say(self, line: str) -> None:
        """Print a line for a person."""
        if not self._as_json:
            typer.echo(line, err=True)

    def _say(self) -> None:
        values = self.values
        if self._terminal:
            line = (
                f"\r{values['candidates']:,.0f} of {values['candidates_all']:,.0f} candidates, "
                f"{values['parts']:,.0f} of {values['parts_all']:,.0f} parts, "
                f"{values['rate']:,.0f}/s, {values['left_s']:,.0f} s left   "
            )
            typer.echo(line, err=True, nl=False)

    def write(self) -> None:
        """Replace the textfile of Prometheus' node exporter."""
        if self._metrics is None:
            return
        lines = []
        for name, (key, help_text) in METRICS.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
            lines.append(f"{name} {self.values[key]:.10g}")
        put_file(self._metrics, ("\n".join(lines) + "\n").encode())
