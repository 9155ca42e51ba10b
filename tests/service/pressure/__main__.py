"""``python -m tests.service.pressure``: the service on one core, a generator on the other.

    python -m tests.service.pressure --json
    python -m tests.service.pressure --part overload2 --knee 210
    python -m tests.service.pressure --part costly --route events --route explain --knee 210

Finds the knee (64 candidates, the paper's sizes, random weights), then prints each bar. A knee that
was found before can be given, so that the parts fit into short quiet times.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from feature_store.schema import FeatureSchema
from tests.service.pressure import bars
from tests.service.pressure.bench import Bench, bench
from tests.service.pressure.costly import costly
from tests.service.world import SMALL, SMALL_SIZES, make_world
from training.qin import QINSizes

CANDIDATES = 64
Part = Callable[[Bench, float], dict[str, Any]]
PARTS: dict[str, Part] = {
    "half": lambda b, s: bars.half_the_knee(b, 0.5 * s),
    "engine": lambda b, s: bars.over_the_engine(b, 0.25 * s),
    "overload2": lambda b, s: bars.overload(b, 2, s),
    "overload5": lambda b, s: bars.overload(b, 5, s),
    "classes": lambda b, s: bars.beside_batch(b, 0.4 * s),
    "long": lambda b, s: bars.long_lists(b, 0.5 * s),
}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(
    part: Annotated[
        list[str], typer.Option(help=f"knee, costly, deadlines, {', '.join(PARTS)}")
    ] = [],  # noqa: B006
    knee: Annotated[float, typer.Option(help="Found before, requests/s; 0: find it.")] = 0,
    slo: Annotated[str, typer.Option(help="The target.")] = "p99=50ms",
    seconds: Annotated[float, typer.Option(help="Of an overload; other runs are shorter.")] = 60,
    sizes: Annotated[str, typer.Option(help="paper or small.")] = "paper",
    route: Annotated[list[str], typer.Option(help="Of part costly: these alone.")] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a bar is missed."""
    chosen = part or ["knee", *PARTS, "costly", "deadlines"]
    found: dict[str, Any] = {"slo": slo, "candidates": CANDIDATES, "sizes": sizes}
    schema, network = {
        "paper": (FeatureSchema.microlens(), QINSizes()),
        "small": (SMALL, SMALL_SIZES),
    }[sizes]
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), schema, network, items=6000, users=151)
        with bench(world, slo, CANDIDATES) as measured:
            measured.knee = knee
            bars.own_time(measured, 4)  # warms up
            if not knee:
                guess = 0.7 / bars.own_time(measured)
                found["knee"] = measured.find_knee(guess, say)
            found["knee_per_s"] = measured.knee
            for name in chosen:
                if name in PARTS:
                    say(name)
                    found[name] = PARTS[name](measured, seconds)
                    say(str(found[name]))
            if "costly" in chosen:
                found["costly"] = costly(measured, seconds / 6, route, say)
        if "deadlines" in chosen:
            # Admission would refuse nearly all that could expire: here it is as good as off.
            with bench(world, slo, CANDIDATES, QIN_TARGET_MS="600000") as measured:
                measured.knee = found["knee_per_s"]
                found["deadlines"] = bars.deadlines(measured, 50, 0.4 * seconds)
                say(str(found["deadlines"]))
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    missed = [n for n, p in found.items() if isinstance(p, dict) and p.get("met") is False]
    say(f"missed: {', '.join(missed)}" if missed else "every bar measured is met")
    raise typer.Exit(int(bool(missed)))


if __name__ == "__main__":
    typer.run(main)
