"""``python -m service``: serve click probabilities over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from pydantic import ValidationError

from feature_store.errors import StoreError
from feature_store.schema import SchemaError
from model_export.errors import BundleError
from service import logs
from service.models_cli import app as models
from service.serving import serve as serve_until_stopped
from service.settings import PREFIX, Settings

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(models, name="models")


@app.callback()
def service() -> None:
    """A user and a candidate list in, click probabilities out."""


@app.command()
def serve(
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle, or a folder of bundles: then the newest.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="lmdb://PATH, redis://HOST, …")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    threads: Annotated[int | None, typer.Option(help="Engine threads; 0 is one per core.")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Once ready, print a request and its answer.")
    ] = False,
) -> None:
    """Serve POST /v1/score until told to stop.

    Every other setting is an environment variable (QIN_…); options win over them.
    """
    given: dict[str, Any] = {
        "bundle": bundle,
        "store": store,
        "host": host,
        "port": port,
        "threads": threads,
    }
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for fault in error.errors():
            name = "".join(f"{PREFIX}{field}: ".upper() for field in fault["loc"][:1])
            typer.echo(name + fault["msg"], err=True)
        raise typer.Exit(2) from None
    logs.configure(settings.log_format, settings.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_until_stopped(settings, example))
    except (BundleError, StoreError, SchemaError, OSError) as error:
        typer.echo(f"cannot serve: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
