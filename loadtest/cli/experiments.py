"""Implements ``search``, ``compare``, ``swap`` and ``soak``."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Annotated, Any

import typer

from loadtest import environment
from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.cli.options import LoadOptions, parse, with_load
from loadtest.cli.progress import live
from loadtest.cli.terminal import (
    AsJson,
    OneSlo,
    OraclePath,
    Out,
    Pid,
    Slos,
    Store,
    console,
    exit_on_error,
    make_folder,
    oracle_of,
    print_json,
    say,
    write_json,
    write_results,
)
from loadtest.experiments.compare import Comparison, failures, sentences
from loadtest.experiments.process import resident_mib
from loadtest.experiments.search import Search
from loadtest.experiments.soak import ResourceMonitor
from loadtest.experiments.swap import Admin, Swapper
from loadtest.experiments.swap import judge as judge_swaps
from loadtest.generator.runner import execute
from loadtest.oracle.comparison import check_run
from loadtest.report import experiments as pages
from loadtest.report.summary import EXIT_CODES, cold_users, show

Json = dict[str, Any]


@with_load
def search(
    options: LoadOptions,
    *,
    slo: OneSlo = "p99=25ms",
    precision: Annotated[float, typer.Option(min=0.01, max=0.5, help="Of the knee.")] = 0.05,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Find the largest rate that meets the target (the knee), and measure rates around it.

    Starts at --rate; a step takes --duration.
    """
    with exit_on_error():
        if options.replay is not None:
            raise ValueError("replay: a log has rates of its own; search takes --arrivals")
        make_folder(out)
        load = options.for_service()
        found = Search(load, Slo.parse(slo), precision, say).run()
        result = found | environment.provenance(load)
        say(
            f"[bold green]KNEE: {result['knee_per_s']:.1f} requests/s meet {slo}[/], confirmed "
            f"{result['confirmations']} times; {result['first_miss_per_s']:.1f}/s did not"
        )
        for line in cold_users(result["points"][-1]):
            say(line)
        if out is not None:
            write_json(out, result)
            pages.write_search(out / "report.html", result)
        if as_json:
            print_json(result)


@with_load
def compare(
    options: LoadOptions,
    *,
    against: Annotated[str | None, typer.Option(help="URL of B; default: that of A.")] = None,
    change: Annotated[
        list[str], typer.Option(help="Setting of B, e.g. candidates=512; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    rounds: Annotated[int, typer.Option(min=3, max=50, help="Rounds of A B A' A' B A.")] = 4,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Compare two services or settings, interleaved, with A against itself as the control.

    A segment takes --duration.
    """
    with exit_on_error():
        make_folder(out)
        a = options.for_service()
        b = changed(options, against, change).for_service()
        result = Comparison(a, b, rounds, say).run() | environment.provenance(a)
        result["b"] = environment.describe(b)
        for line in (*sentences(result["effects"]), *failures(result["rounds"])):
            say(line)
        first, *others = result["rounds"][0]
        for segment in (first, next(one for one in others if one["arm"] == "B")):
            for line in cold_users(segment):
                say(f"{segment['arm']}: {line}")
        if out is not None:
            write_json(out, result)
            pages.write_comparison(out / "report.html", result)
        if as_json:
            print_json(result)


@with_load
def swap(
    options: LoadOptions,
    *,
    admin: Annotated[str, typer.Option(help="URL of the admin API.")] = "http://127.0.0.1:8001",
    admin_token: Annotated[str, typer.Option(envvar="QIN_ADMIN_TOKEN")] = "",
    version: Annotated[
        list[str],
        typer.Option(help="To activate, in turn; repeatable; default: the active and one more."),
    ] = [],  # noqa: B006 - typer copies it
    swaps: Annotated[int, typer.Option(min=1, max=10_000, help="Number of activations.")] = 20,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Unload and load each version before its activation.")
    ] = False,
    pid: Pid = None,
    slo: Slos = [],  # noqa: B006 - typer copies it
    oracle: OraclePath = None,
    store: Store = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Swap models under load; count lost, mixed and wrong answers and compare latency.

    The first fifth and the last tenth of --duration have no swaps, for comparison.
    """
    with exit_on_error(), oracle_of(oracle, store) as judge:
        slos = [Slo.parse(text) for text in slo]
        make_folder(out)
        load = replace(options.for_service(), keep_answers=judge is not None)
        api = Admin(admin, admin_token, load.allow_remote)
        versions = version or api.versions()[:2]
        if len(versions) < 2:
            raise ValueError(f"version: two versions are required, found {versions}")
        begin, end = (load.warmup + share * load.seconds for share in (0.2, 0.9))
        swapper = Swapper(api, versions, swaps, begin, end, pid, fresh)
        with live(console, "swap") as watch, execute(load, watch=watch, background=swapper) as run:
            checked = None if judge is None else check_run(run, judge)
            result = summarise(run, slos, checked)
            result["swap"] = judge_swaps(run, swapper, checked)
            show(console, result)
            for line in (pages.swap_sentence(result["swap"]), *pages.failed_swaps(result["swap"])):
                say(line)
            write_results(out, run, result, [pages.swap_section(run, result["swap"])])
        if as_json:
            print_json(result)
        found = result["swap"]
        lost = found["errors"] or found["mixed_versions"] or found["wrong_scores"]
        code = EXIT_CODES[result["verdict"]]
        raise typer.Exit(max(code, 1) if lost else code)


@with_load
def soak(
    options: LoadOptions,
    *,
    pid: Annotated[int, typer.Option(help="Process id of the service; its children are included.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between samples.")] = 1.0,
    settle: Annotated[float, typer.Option(min=0, max=0.9, help="Share not judged.")] = 0.2,
    growth: Annotated[float, typer.Option(min=0, help="Allowed growth of memory, a share.")] = 0.05,
    more_descriptors: Annotated[
        int, typer.Option(min=0, help="Allowed growth of open descriptors.")
    ] = 16,
    slo: Slos = [],  # noqa: B006 - typer copies it
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Check that memory and descriptors of the service stay steady under load."""
    with exit_on_error():
        slos = [Slo.parse(text) for text in slo]
        make_folder(out)
        resident_mib(pid)  # a wrong pid is an error before the load
        watcher = ResourceMonitor(pid, every)
        with (
            live(console, "soak") as watch,
            execute(options.for_service(), watch=watch, background=watcher) as run,
        ):
            result = summarise(run, slos)
            result["soak"] = watcher.judge(
                settle=settle, growth=growth, more_descriptors=more_descriptors
            )
            show(console, result)
            say(pages.soak_sentence(result["soak"]))
            write_results(out, run, result, [pages.soak_section(result["soak"])])
        if as_json:
            print_json(result)
        code = EXIT_CODES[result["verdict"]]
        raise typer.Exit(code if result["soak"]["passed"] else max(code, 1))


def changed(options: LoadOptions, url: str | None, changes: list[str]) -> LoadOptions:
    """Build B's options: A's with another URL or other settings."""
    known = sorted(field.name for field in fields(LoadOptions))
    new: dict[str, Any] = {} if url is None else {"url": url}
    for text in changes:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in known:
            raise ValueError(
                f"change: {text!r} should be NAME=VALUE, NAME one of {', '.join(known)}"
            )
        if name == "header":
            new[name] = [*options.header, value]
        else:
            new[name] = parse(name, value)
    if not new:
        raise ValueError("compare: B equals A; give --against or --change")
    return replace(options, **new)
