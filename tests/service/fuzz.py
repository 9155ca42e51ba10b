"""``python -m tests.service.fuzz --json``: schemathesis, all checks, against a running service.

Cases are generated from the service's own OpenAPI document, valid ones and invalid ones, and every
answer is held to that document. Exit code 1 if any check failed, anything was a 5xx that the case
did not ask for, or fewer cases ran than were asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.service.mapped_world import make_mapped
from tests.service.process import serving
from tests.service.world import make_world

ROOT = Path(__file__).parents[2]
CASES_PER_EXAMPLE = 12  # of the operations, so many take as many examples as they are given
LIMIT_S = 1200


@dataclass
class Outcome:
    """Of one run."""

    cases: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    server_errors: int = 0  # 5xx, but for deadlines that the case itself set
    deadlines_asked_for: int = 0  # 504 to a case with an X-Deadline-Ms
    breaches: int = 0  # failures that schemathesis found
    said: str = field(default="", repr=False)


def fuzz(
    url: str, examples: int, seed: int, *, leave_out: str = "^$", key: str | None = None
) -> Outcome:
    """Run schemathesis, ``examples`` per operation and phase, but on paths like ``leave_out``."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        har = Path(name) / "cases.har"
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--checks", "all", "--max-examples", str(examples), "--seed", str(seed)),
            *("--report-har-path", str(har), "--generation-database", "none", "--no-color"),
            *("--exclude-path-regex", leave_out),
            *(("--header", f"Authorization: Bearer {key}") if key else ()),
            *("--continue-on-failure", "--suppress-health-check", "all"),
        ]
        ran = subprocess.run(
            command,
            cwd=name,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        if not har.exists():
            raise RuntimeError(ran.stdout + ran.stderr)
        outcome = _counted(json.loads(har.read_text())["log"]["entries"])
        outcome.said = ran.stdout
        outcome.breaches = ran.stdout.count("\n- ST") if ran.returncode else 0
        if ran.returncode not in (0, 1) or (ran.returncode and not outcome.breaches):
            raise RuntimeError(ran.stdout + ran.stderr)
        return outcome


def _counted(entries: list[dict[str, Any]]) -> Outcome:
    statuses = Counter(entry["response"]["status"] for entry in entries)
    asked_for = sum(entry["response"]["status"] == 504 and _hurried(entry) for entry in entries)
    return Outcome(
        cases=len(entries),
        statuses={str(status): count for status, count in sorted(statuses.items())},
        server_errors=sum(n for status, n in statuses.items() if status >= 500) - asked_for,
        deadlines_asked_for=asked_for,
    )


def _hurried(entry: dict[str, Any]) -> bool:
    return any(h["name"].lower() == "x-deadline-ms" for h in entry["request"]["headers"])


HOOKS = "tests.service.fuzz_hooks"


def main(
    cases: Annotated[int, typer.Option(help="At least so many.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the cases.")] = 1,
    texts: Annotated[bool, typer.Option("--texts", help="Against a store of text ids.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    with tempfile.TemporaryDirectory(prefix="world-") as name:
        world = make_world(Path(name))
        store = make_mapped(world, Path(name)).store if texts else world.store
        with serving(world.models, store) as service:
            outcome = fuzz(service.url, -(-cases // CASES_PER_EXAMPLE), seed)
    figures = asdict(outcome)
    said = figures.pop("said")
    typer.echo(json.dumps(figures) if as_json else f"{said}\n{figures}")
    if outcome.server_errors or outcome.breaches or outcome.cases < cases:
        typer.echo(said, err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
