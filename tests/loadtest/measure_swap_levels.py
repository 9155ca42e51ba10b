"""Swaps plain ↔ levels on one store under load. ``python -m tests.loadtest.measure_swap_levels``.

A plain version, and one with user, request and levelled item features and users' identities, of
random weights and small sizes, in one models folder; users with a record, with a history, with both
and with none. ``loadtest swap`` activates them in turn, each unloaded and loaded before, and checks
every answer, `defaulted` and `ignored` included, against the offline one of the version it names.
Exit code 1 unless all swaps were made and no request failed, was mixed or wrong.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from tests.service.process import serving
from tests.service.user_world import REQUEST_FEATURES, USER_FEATURES, add_levels
from tests.service.world import make_world

KNOWN, RECORDS, ALL = 600, 400, 800  # users below these have a history, a record; all are asked for
# Refusals and deadlines on a busy machine are no fault of the swaps.
PATIENT = {"QIN_STORE_TIMEOUT_MS": "5000", "QIN_DEADLINE_MS": "5000", "QIN_MODEL_POLICY": "manual"}
NONE = ("errors", "mixed_versions", "wrong_scores", "wrong_features")


def measured(folder: Path, *, swaps: int, duration: int, rate: float) -> dict[str, Any]:
    plain = make_world(folder, items=2000, users=KNOWN)
    asyncio.run(add_levels(plain, users=RECORDS))
    models, store = str(plain.models), plain.store
    with serving(plain.models, plain.store, **PATIENT) as service:
        command = [
            *(sys.executable, "-m", "loadtest", "swap", service.url, "--json", "--fresh"),
            *("--admin", f"http://127.0.0.1:{service.admin_port}", "--swaps", str(swaps)),
            *("--rate", str(rate), "--duration", f"{duration}s", "--distinct", "2000"),
            *("--users", f"1..{ALL}", "--items", store, "--features", models),
            *("--oracle", models, "--store", store),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    result = orjson.loads(done.stdout)
    swap, oracle, machine = result["swap"], result["oracle"], result["environment"]
    return {
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "requests": result["requests"],
        "rate_per_s": round(result["rate"]["achieved_per_s"], 1),
        "swaps_wanted": swaps,
        "swaps": swap["swaps"],
        **{name: swap[name] for name in NONE},
        "checked": swap["checked"],
        "worst_error": oracle["worst_error"],
        "answers_by_version": result["versions"],
        "features_sent": result["features"]["given"],
        "defaulted": oracle["defaulted"],
        "ignored": oracle["ignored"],
        "p99_around_swaps_ms": swap["p99_around_swaps_ms"],
        "p99_without_ms": swap["p99_without_ms"],
        "activation_to_first_answer_ms": swap["activation_to_first_answer_ms"],
        "reasons": result["reasons"],
        "statuses": result["statuses"],
        "refused_activations": swap["refused_activations"],
    }


def meets_bar(found: dict[str, Any]) -> bool:
    """Whether nothing failed, was mixed or wrong, and every answer, in all its kinds, was seen."""
    seen = set(found["ignored"]) == set(REQUEST_FEATURES)
    seen = seen and set(found["defaulted"]) == {*USER_FEATURES, *REQUEST_FEATURES}
    complete = found["swaps"] == found["swaps_wanted"] and len(found["answers_by_version"]) == 2
    none = all(found[name] == 0 for name in NONE)
    return none and complete and seen and found["checked"] == found["requests"]


def main(
    swaps: Annotated[int, typer.Option(help="Activations.")] = 100,
    duration: Annotated[int, typer.Option(help="Seconds.")] = 90,
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        found = measured(Path(name), swaps=swaps, duration=duration, rate=rate)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        for what, value in found.items():
            print(f"{what:>30} {value}")
    if not meets_bar(found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
