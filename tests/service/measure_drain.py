"""What SIGTERM costs under load. ``python -m tests.service.measure_drain [--json]``.

A service answers callers that keep their connections and others that open one per request; beside
them are a half-sent body, a silent connection and an idle one. Then it gets SIGTERM, and the
callers go on until their connections are refused. A request whose connection was made and that got
no answer is lost. In every other round the half-sent body may take longer than the grace time.

``--unprivileged --keeping 0 --fresh 0 --probing 16 --rounds 20``: as the image's user, without
capabilities, under callers that open a connection per request as fast as they can.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import orjson
import typer

from tests.service import unprivileged
from tests.service.process import START_TIMEOUT_S, Service, serving
from tests.service.traffic import Outcomes, Traffic
from tests.service.wire import HALF_BODY, connected
from tests.service.world import World, make_world

NOTICE_S, GRACE_S = 0.5, 3.0
MARGIN_S = 1.0
BEFORE_S = 0.3  # of load, before the signal


@dataclass(frozen=True, slots=True)
class Plan:
    """What is stopped, and under whose requests."""

    keeping: int = 12  # callers that keep their connections
    fresh: int = 4  # callers that open one per request
    probing: int = 0  # callers that open one for /livez, without a pause
    workers: int = 1
    host: str = "127.0.0.1"
    unprivileged: bool = False  # as the image's user, without capabilities


def measured(world: World, rounds: int, at_once: int, plan: Plan) -> dict[str, Any]:
    return asyncio.run(_rounds(world, rounds, at_once, plan))


async def _rounds(world: World, rounds: int, at_once: int, plan: Plan) -> dict[str, Any]:
    room = asyncio.Semaphore(at_once)

    async def bounded(number: int) -> tuple[Outcomes, float, int]:
        async with room:
            return await one_drain(world, plan, body_outlives_grace=bool(number % 2))

    found = await asyncio.gather(*(bounded(number) for number in range(rounds)))
    total = Outcomes()
    for outcomes, _, _ in found:
        total.add(outcomes)
    return {
        "sigterms": rounds,
        "answered": total.statuses[200],
        "answered_otherwise": {s: n for s, n in total.statuses.items() if s != 200},
        "lost_or_reset": [reason for _, reason in total.lost],
        "connections_refused_after": total.refused,
        "closed_while_idle": total.closed,
        "grace_s": GRACE_S,
        "longest_exit_s": round(max(seconds for _, seconds, _ in found), 2),
        "exit_codes": sorted({code for _, _, code in found}),
    }


async def one_drain(
    world: World, plan: Plan, *, body_outlives_grace: bool
) -> tuple[Outcomes, float, int]:
    """What became of the requests, seconds from signal to end, exit code.

    ``world`` is lent to the image's user where the plan is ``unprivileged``.
    """
    variables = {
        "QIN_DRAIN_NOTICE_S": str(NOTICE_S),
        "QIN_SHUTDOWN_GRACE_S": str(GRACE_S),
        "QIN_BODY_TIMEOUT_MS": str(1e3 * (10 * GRACE_S if body_outlives_grace else 1)),
        "QIN_HEADERS_TIMEOUT_MS": "2000",
        "QIN_LOG_LEVEL": "error",
        "QIN_THREADS": "1",
        "QIN_WORKERS": str(plan.workers),
        "QIN_HOST": plan.host,
    }
    under: tuple[str, ...] = ()
    with ExitStack() as stack:
        if plan.unprivileged:
            under = unprivileged.under()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            unprivileged.lend(folder)
            variables |= unprivileged.variables(folder / "private")
        service = await asyncio.to_thread(
            stack.enter_context, serving(world.models, world.store, under=under, **variables)
        )
        traffic = Traffic.begin(
            service, world, keeping=plan.keeping, fresh=plan.fresh, probing=plan.probing
        )
        await asyncio.sleep(BEFORE_S)
        stack.enter_context(_bystanders(service))
        service.process.send_signal(signal.SIGTERM)
        told = perf_counter()
        ended = asyncio.create_task(asyncio.to_thread(service.process.wait, START_TIMEOUT_S))
        outcomes = await traffic.outcomes()
        code = await ended
        return outcomes, perf_counter() - told, code


@contextmanager
def _bystanders(service: Service) -> Iterator[None]:
    """A half-sent body, a silent connection."""
    with connected(service) as half, connected(service):
        half.sendall(HALF_BODY)
        yield


def holds(found: dict[str, Any]) -> bool:
    return (
        not found["lost_or_reset"]
        and not found["answered_otherwise"]
        and found["longest_exit_s"] <= found["grace_s"] + MARGIN_S
        and found["exit_codes"] == [0]
    )


def main(
    rounds: Annotated[int, typer.Option(help="SIGTERMs.")] = 50,
    at_once: Annotated[int, typer.Option(help="Services at a time.")] = 2,
    keeping: Annotated[int, typer.Option(help="Callers that keep their connections.")] = 12,
    fresh: Annotated[int, typer.Option(help="Callers that open one per request.")] = 4,
    probing: Annotated[
        int, typer.Option(help="Callers that open one for /livez, without a pause.")
    ] = 0,
    workers: Annotated[int, typer.Option(help="Processes that answer.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen on: 127.0.0.1 or ::1.")] = (
        "127.0.0.1"
    ),
    as_image: Annotated[
        bool, typer.Option("--unprivileged", help="As uid 10001 without capabilities.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when a request was lost, or a stop took longer than the grace time and 1 s."""
    plan = Plan(keeping, fresh, probing, workers, host, as_image)
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        if as_image:
            unprivileged.lend(Path(folder))
        found = {"plan": asdict(plan), **measured(world, rounds, at_once, plan)}
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    typer.echo(text if as_json else "\n".join(f"{k:28} {v}" for k, v in found.items()))
    raise typer.Exit(int(not holds(found)))


if __name__ == "__main__":
    typer.run(main)
