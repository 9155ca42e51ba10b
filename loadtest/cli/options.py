"""The options that every command with a load has in common, and the load they become.

They are declared once, as fields. ``with_load`` gives a command all of them beside its own, so
that commands take one ``LoadOptions`` instead of two dozen arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from loadtest.generator.runner import Load
from loadtest.generator.schedule import Arrivals
from loadtest.generator.workload import Workload
from loadtest.units import seconds


@dataclass(frozen=True)
class LoadOptions:
    """A load as it was typed."""

    url: Annotated[str, typer.Argument(help="The service, e.g. http://127.0.0.1:8000")]
    rate: Annotated[float, typer.Option(help="Requests a second, on average.")] = 100.0
    duration: Annotated[str, typer.Option(help="How long, e.g. 30s or 2m.")] = "30s"
    warmup: Annotated[str, typer.Option(help="Sent first, left out of every number.")] = "2s"
    arrivals: Annotated[
        str, typer.Option(help="poisson | constant | bursts:SIZE | ramp:START_RATE")
    ] = "poisson"
    seed: Annotated[int, typer.Option(min=0, help="Times and requests follow from it.")] = 1
    replay: Annotated[
        Path | None, typer.Option(help="Send a recorded log (see `plan`) instead.")
    ] = None
    speed: Annotated[float, typer.Option(help="Replay so many times faster.")] = 1.0
    users: Annotated[str, typer.Option(help="LOW..HIGH | COUNT | FILE.parquet[:COLUMN]")] = (
        "1..10000"
    )
    items: Annotated[
        str, typer.Option(help="LOW..HIGH | COUNT | FILE.parquet[:COLUMN] | store URL")
    ] = "1..10000"
    user_zipf: Annotated[float, typer.Option(min=0, max=4, help="Exponent; 0: all alike.")] = 0.9
    item_zipf: Annotated[float, typer.Option(min=0, max=4, help="Exponent; 0: all alike.")] = 0.9
    candidates: Annotated[
        str, typer.Option(help="64 | 10..500 | lognormal:MEDIAN:SIGMA[:MOST] | 50@0.9,5000@0.1")
    ] = "64"
    events: Annotated[float, typer.Option(min=0, max=1, help="Share of clicks among them.")] = 0.0
    top_k: Annotated[int | None, typer.Option(min=1, help="Ask for the best k only.")] = None
    inline_history: Annotated[int, typer.Option(min=0, help="History items sent along.")] = 0
    distinct: Annotated[int, typer.Option(min=1, help="Requests prepared, sent in turn.")] = 10_000
    events_url: Annotated[
        str | None, typer.Option(help="Where clicks go, if elsewhere: the admin port.")
    ] = None
    api_key: Annotated[
        str, typer.Option(envvar="QIN_API_KEY", help="The service's; the variable is not in ps.")
    ] = ""
    events_key: Annotated[
        str, typer.Option(envvar="QIN_EVENTS_KEY", help="For clicks: the admin port's token.")
    ] = ""
    header: Annotated[list[str], typer.Option(help="NAME: VALUE; repeat.")] = field(
        default_factory=list
    )
    timeout: Annotated[str, typer.Option(help="From the scheduled send.")] = "5s"
    connections: Annotated[int, typer.Option(min=1, max=15_000, help="At most, at once.")] = 1024
    keep_alive: Annotated[
        str, typer.Option(help="Idle connections are closed after it: less than the service's.")
    ] = "4s"
    generator_cores: Annotated[
        str, typer.Option(help="One generator on each of these cores: 0 or 0,2,3.")
    ] = ""
    stages: Annotated[bool, typer.Option(help="Ask for Server-Timing and join it.")] = True
    allow_remote: Annotated[bool, typer.Option(help="Aim at another machine.")] = False

    def load(self) -> Load:
        """ValueError, of one kind or another, names the option at fault."""
        return Load(
            url=self.url,
            rate=self.rate,
            seconds=seconds(self.duration),
            warmup=0.0 if self.warmup == "0" else seconds(self.warmup),
            arrivals=Arrivals.parse(self.arrivals),
            seed=self.seed,
            workload=Workload(
                users=self.users,
                items=self.items,
                user_zipf=self.user_zipf,
                item_zipf=self.item_zipf,
                candidates=self.candidates,
                events=self.events,
                top_k=self.top_k,
                inline_history=self.inline_history,
                distinct=self.distinct,
                headers=dict(map(_header, self.header)),
            ),
            replay=self.replay,
            speed=self.speed,
            timeout=seconds(self.timeout),
            connections=self.connections,
            keep_alive=seconds(self.keep_alive),
            generator_cores=_cores(self.generator_cores),
            stages=self.stages,
            allow_remote=self.allow_remote,
            events_url=self.events_url,
            api_key=_key("api-key", self.api_key),
            events_key=_key("events-key", self.events_key),
        )


def with_load(command: Callable[..., None]) -> Callable[..., None]:
    """Turn ``command(options: LoadOptions, …)`` into one with every field as an option."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    hints = get_type_hints(LoadOptions, include_extras=True)
    shared = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name]
        )
        for f in fields(LoadOptions)
    ]
    names = {parameter.name for parameter in shared}

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        options = LoadOptions(**{name: values.pop(name) for name in names})
        command(options, **values)

    first, *others = shared
    parameters = [first, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *others]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _default(option: Any) -> Any:
    if option.name == "url":
        return inspect.Parameter.empty
    return [] if option.name == "header" else option.default


def _cores(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"generator-cores: {text!r} should be written 0 or 0,2,3") from None


def _key(option: str, key: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{option}: a key is printable ASCII without spaces")
    return key


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip() or "\r" in line or "\n" in line:
        raise ValueError(f"header: {line!r} should be written NAME: VALUE")
    return name.strip(), value.strip()
