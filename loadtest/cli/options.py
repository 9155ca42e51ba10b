"""Declares the options shared by all commands with a load, and builds a ``Load`` from them.

``with_load`` adds them to a command's own, so that commands take one ``LoadOptions`` instead of two
dozen arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from loadtest.cli.terminal import say
from loadtest.generator.id_kind import id_kind
from loadtest.generator.open_files import hard_limit
from loadtest.generator.runner import Load
from loadtest.generator.schedule import Arrivals
from loadtest.generator.workload import Workload
from loadtest.target import Target
from loadtest.units import seconds

SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class LoadOptions:
    """The options of a load, as given."""

    url: Annotated[str, typer.Argument(help="URL of the service, e.g. http://127.0.0.1:8000")]
    rate: Annotated[float, typer.Option(help="Mean requests per second.")] = 100.0
    duration: Annotated[str, typer.Option(help="Duration, e.g. 30s or 2m.")] = "30s"
    warmup: Annotated[str, typer.Option(help="Warm-up before it, not measured.")] = "2s"
    arrivals: Annotated[
        str, typer.Option(help="poisson | constant | bursts:SIZE | ramp:START_RATE")
    ] = "poisson"
    seed: Annotated[int, typer.Option(min=0, help="Seed of times and requests.")] = 1
    replay: Annotated[
        Path | None, typer.Option(help="Send a recorded log (see `plan`) instead.")
    ] = None
    speed: Annotated[float, typer.Option(help="Speed-up of a replay.")] = 1.0
    users: Annotated[
        str, typer.Option(help="LOW..HIGH | COUNT | FILE.parquet[:COLUMN] | store URL")
    ] = "1..10000"
    items: Annotated[
        str, typer.Option(help="LOW..HIGH | COUNT | FILE.parquet[:COLUMN] | store URL")
    ] = "1..10000"
    user_zipf: Annotated[float, typer.Option(min=0, max=4, help="Exponent; 0: uniform.")] = 0.9
    item_zipf: Annotated[float, typer.Option(min=0, max=4, help="Exponent; 0: uniform.")] = 0.9
    candidates: Annotated[
        str, typer.Option(help="64 | 10..500 | lognormal:MEDIAN:SIGMA[:MOST] | 50@0.9,5000@0.1")
    ] = "64"
    events: Annotated[float, typer.Option(min=0, max=1, help="Share of clicks.")] = 0.0
    top_k: Annotated[int | None, typer.Option(min=1, help="Request the best k only.")] = None
    inline_history: Annotated[int, typer.Option(min=0, help="History items in the request.")] = 0
    features: Annotated[
        str | None,
        typer.Option(help="Request features: bundle | folder of bundles | FILE.parquet"),
    ] = None
    missing: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of each feature, and of users, that is unknown."),
    ] = 0.1
    distinct: Annotated[int, typer.Option(min=1, help="Distinct requests prepared.")] = 10_000
    events_url: Annotated[
        str | None, typer.Option(help="URL for clicks, if different: the admin port.")
    ] = None
    api_key: Annotated[
        str, typer.Option(envvar="QIN_API_KEY", help="API key; the variable is hidden from ps.")
    ] = ""
    events_key: Annotated[
        str, typer.Option(envvar="QIN_EVENTS_KEY", help="Key for clicks: the admin port's token.")
    ] = ""
    header: Annotated[list[str], typer.Option(help="NAME: VALUE; repeatable.")] = field(
        default_factory=list
    )
    timeout: Annotated[str, typer.Option(help="Time limit, from the scheduled send.")] = "5s"
    connections: Annotated[int, typer.Option(min=1, max=15_000, help="At most.")] = 1024
    keep_alive: Annotated[
        str, typer.Option(help="Idle time after which connections close; less than the service's.")
    ] = "4s"
    generator_cores: Annotated[
        str, typer.Option(help="Cores, e.g. 0,2,3: a generator pinned to each.")
    ] = ""
    stages: Annotated[bool, typer.Option(help="Request and analyse Server-Timing.")] = True
    allow_remote: Annotated[bool, typer.Option(help="Allow a URL on another machine.")] = False

    def load(self) -> Load:
        """Build the load; a ValueError names the invalid option."""
        if not self.rate > 0:
            raise ValueError(f"rate: {self.rate:g} is not positive")
        if self.replay is None and self.speed != 1:
            raise ValueError("speed: of a replay; give --replay, too")
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
                features=self.features,
                missing=self.missing,
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

    def for_service(self) -> Load:
        """Build the load; the service is asked which kind of ids it takes."""
        asked = self.load()
        load = asked.within_open_files()
        if load.connections < asked.connections:
            say(
                f"warning: ulimit -Hn {hard_limit():,}: at most {load.connections:,} connections "
                f"instead of {asked.connections:,}"
            )
        target = Target.parse(load.url, allow_remote=load.allow_remote)
        return replace(load, ids=id_kind(target))


def parse(name: str, text: str) -> Any:
    """Read an option's value as the command line does, within its bounds."""
    given, option = get_args(get_type_hints(LoadOptions, include_extras=True)[name])
    kind = next((kind for kind in get_args(given) if kind is not NoneType), given)
    if kind is bool:
        if text.lower() not in SWITCHES:
            raise ValueError(f"{name}: {text!r} is none of {', '.join(SWITCHES)}")
        return SWITCHES[text.lower()]
    if kind not in (int, float):
        return kind(text)
    try:
        value = kind(text)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise ValueError(f"{name}: {text!r} is not {wanted}") from None
    low, high = getattr(option, "min", None), getattr(option, "max", None)
    if not (low is None or low <= value) or not (high is None or value <= high):
        bounds = f"{low} or more" if high is None else f"within {low} … {high}"
        raise ValueError(f"{name}: must be {bounds}, got {text}")
    return value


def with_load(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(options: LoadOptions, …)`` an option for each field of ``LoadOptions``."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    hints = get_type_hints(LoadOptions, include_extras=True)
    defaults = {f.name: f.default for f in fields(LoadOptions)}
    defaults |= {"url": inspect.Parameter.empty, "header": []}
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name]
        )
        for name, default in defaults.items()
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        options = LoadOptions(**{name: values.pop(name) for name in defaults})
        command(options, **values)

    first, *others = shared
    parameters = [first, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *others]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


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
