"""``python -m service``: serve click probabilities over HTTP."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from feature_store.errors import StoreError
from feature_store.schema import SchemaError
from feature_store.terminal import run
from feature_store.wording import with_file
from model_export.bundle.errors import BundleError
from service.cli.example import show_example
from service.cli.models import app as models
from service.cli.probe import probe
from service.cli.settings import settings_or_exit
from service.observability import log_writer, logs
from service.observability.background import guard_process
from service.observability.logs import logger
from service.processes.channel import WorkerArgs
from service.processes.run_folder import remove_left, run_folder
from service.settings import Settings, api_keys, is_loopback, unknown_variables

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(models, name="models")
app.command()(probe)

# Of what is imported nothing is garbage: net growth, in objects, before the collector looks.
IMPORTING = 50_000


@app.callback()
def service() -> None:
    """Predicts click probabilities for a user and a list of candidates."""


@app.command()
def serve(
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle, or a folder: its newest bundle.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="lmdb://PATH, redis://HOST, …")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Engine threads per worker; 0: cores divided by workers.")
    ] = None,
    example: Annotated[
        bool,
        typer.Option(
            "--example", help="Once ready, print a request, its answer and what to open next."
        ),
    ] = False,
) -> None:
    """Serve POST /v1/score until SIGTERM or SIGINT.

    Every other setting is an environment variable (QIN_…). Options override variables.
    """
    options = {
        "bundle": bundle,
        "store": store,
        "host": host,
        "port": port,
        "workers": workers,
        "threads": threads,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = settings_or_exit(given)
    logs.configure(settings.log_format, settings.log_level)
    log_writer.write_apart()
    for variable in unknown_variables(dict(os.environ)):
        logger.warning("unknown variable ignored", variable=variable)
    _log_access(settings)
    remove_left()
    # Imported late: a supervisor needs no part that answers requests.
    gc.set_threshold(IMPORTING)
    if settings.workers == 1:
        from service.processes.run import serve as serve_alone

        _run(serve_alone(settings, show_example if example else None))
        return
    from service.processes.supervisor import CannotStart, supervise

    with run_folder() as folder:
        texts = {name: str(value) for name, value in given.items()}
        try:
            _run(supervise(settings, texts, folder, example))
        except CannotStart as error:
            raise typer.Exit(error.code) from None


@app.command(hidden=True)
def worker(args: str) -> None:
    """A worker process; started by ``serve --workers``."""
    gc.set_threshold(IMPORTING)
    from service.processes.worker import work

    settings = settings_or_exit({})
    logs.configure(settings.log_format, settings.log_level)
    log_writer.write_apart()
    _run(work(WorkerArgs.model_validate_json(args), settings, show_example))


def _log_access(settings: Settings) -> None:
    keys = sorted({name for name, _ in api_keys(settings.api_keys)})
    items, events = settings.writes_at, settings.events_at
    logger.info("access", item_writes=items, events=events, api_keys=keys)
    if "service" in (items, events) and not keys and not is_loopback(settings.host):
        logger.warning(
            "the public port accepts writes without an API key",
            hint="set QIN_API_KEYS, or QIN_WRITES_ON=admin and QIN_EVENTS_ON=admin",
        )


def _run(serving: Coroutine[Any, Any, None]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor per connection
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            guard_process(runner.get_loop())
            runner.run(serving)
    except (BundleError, StoreError, SchemaError, OSError) as error:
        typer.echo(f"cannot serve: {with_file(error)}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    run(app)
