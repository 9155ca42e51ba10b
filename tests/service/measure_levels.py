"""Serves a level variant of any sizes over HTTP. ``python -m tests.service.measure_levels --json``.

A random network, by default at the authors' sizes (177,801,093 parameters), is written as their
state_dict, imported with ``--users``, built, and served by real processes from a store that was
loaded by the command line. Every answer of ``/v1/score`` is compared with a float64 forward over
the tensors of the file; some of those with loops over them.

Beside that, of one worker and of several: the memory of the service, and of it the mapped table of
users, which all processes share: its pages count once (Pss) and none is a process's own.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import orjson
import psutil
import typer

from model_export.graphs.user_tower import MAPPED_BYTES
from tests.model_export.measure_levels import TOLERANCE, Sizes
from tests.model_export.naive_published import probability
from tests.service.level_world import Case, LevelWorld, make_level_world
from tests.service.process import START_TIMEOUT_S, serving

TABLE = "user_index.table.npy"
BY_LOOPS = 4  # cases that the loops compute, too


def measured(
    sizes: Sizes, requests: int, seed: int = 0, workers: tuple[int, ...] = (1, 2)
) -> dict[str, Any]:
    began = time.monotonic()

    def announce(step: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s {step}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        world = make_level_world(Path(folder), sizes, seed, announce)
        announce("answers in float64")
        cases = list(world.cases(requests))
        expected = world.answers(cases)
        served = {}
        for count in workers:
            announce(f"service of {count} workers")
            with ExitStack() as stack:
                service = stack.enter_context(
                    serving(world.models, world.store, QIN_WORKERS=str(count))
                )
                wait_all_ready(service.process.pid, count, sizes)
                # Each worker has one of the connections.
                clients = [stack.enter_context(service.client()) for _ in range(count)]
                errors = [
                    asked(clients[number % count], world, case, answer)
                    for number, (case, answer) in enumerate(zip(cases, expected, strict=True))
                ]
                served[str(count)] = {
                    "worst_error": float(np.concatenate(errors).max()),
                    "mean_error": float(np.concatenate(errors).mean()),
                    **memory(service.process.pid),
                }
        announce("loops")
        return {
            "parameters": world.parameters,
            "requests": len(cases),
            "scores": sum(int(np.isfinite(answer).sum()) for answer in expected),
            "lowest": float(min(np.nanmin(a) for a in expected if np.isfinite(a).any())),
            "highest": float(max(np.nanmax(a) for a in expected if np.isfinite(a).any())),
            "scores_by_kind": dict(sorted(sum(map(world.kinds, cases), Counter()).items())),
            "by_workers": served,
            "worst_error_of_the_forward_by_loops": by_loops(world, cases, expected),
            "tolerance": TOLERANCE,
            "user_table_bytes": sizes.user_table_bytes,
            "memory_most_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "took_s": round(time.monotonic() - began, 1),
        }


def asked(
    client: httpx.Client, world: LevelWorld, case: Case, expected: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Absolute errors of one answer, whose other members are as they must be."""
    answer = client.post("/v1/score", json=case.body(), headers={"X-Deadline-Ms": "10000"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["defaulted"] == ["user_index"] * (case.index == 0), (case, found)
    cold = case.candidates[np.isin(case.candidates, world.ids)]
    cold = cold[world.known_rows(cold)["item_id"] == 0]
    assert found["cold_items"] == list(dict.fromkeys(cold.tolist()))
    assert found["cold_user"] == (len(case.history) == 0)
    scores = np.array([np.nan if score is None else score for score in found["scores"]])
    assert (np.isnan(scores) == np.isnan(expected)).all(), (case, found)
    return np.abs(scores - expected)[np.isfinite(expected)]


def wait_all_ready(pid: int, workers: int, sizes: Sizes) -> None:
    """Wait until every worker has mapped the table, if that is large enough to be a file."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while sizes.user_table_bytes > MAPPED_BYTES and memory(pid)["processes"] < workers:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def by_loops(world: LevelWorld, cases: list[Case], expected: list[np.ndarray[Any, Any]]) -> float:
    """The worst difference of the forward to loops, over the first cases with a history."""
    state = world.forward.state
    worst, some = 0.0, [n for n, c in enumerate(cases) if len(c.history) and c.context]
    for number in some[:BY_LOOPS]:
        case = cases[number]
        past = [
            dict(zip(row.dtype.names, row, strict=True)) for row in world.known_rows(case.history)
        ]
        for place, item in enumerate(case.candidates):
            if np.isfinite(expected[number][place]):
                [row] = world.known_rows(item[None])
                own = dict(zip(row.dtype.names, row, strict=True))
                context = own | {name: values[place] for name, values in case.context.items()}
                found = probability(state, own, past, case.index, context)
                worst = max(worst, abs(found - float(expected[number][place])))
    return worst


def memory(pid: int) -> dict[str, Any]:
    """Memory of a process and its children in bytes, and of it the table of users."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    parts = Counter(processes=0)
    files = set()
    for process in family:
        parts["service_pss"] += process.memory_full_info().pss
        mapped = False
        for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):  # the first line of a mapping
                mapped = words[-1].endswith(TABLE)
                if mapped:
                    parts["processes"] += 1
                    files.add((words[3], words[4]))  # device and inode
            elif mapped and words[0] in ("Rss:", "Pss:", "Private_Dirty:", "Anonymous:"):
                parts[f"table_{words[0][:-1].lower()}"] += 1024 * int(words[1])
    return {**parts, "table_files": len(files)}


def is_met(result: dict[str, Any]) -> bool:
    """Within the tolerance; and the table, if it is a file, is one for all processes."""
    for found in result["by_workers"].values():
        if not found["worst_error"] <= TOLERANCE:
            return False
        if found["table_files"] and (found["table_files"] > 1 or found["table_anonymous"]):
            return False
    return True


def main(
    requests: Annotated[int, typer.Option(help="Of each service.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of the network.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    result = measured(Sizes(), requests, seed)
    typer.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2) if as_json else str(result))
    if not is_met(result):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
