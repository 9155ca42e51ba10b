"""``python -m service probe``: asks the service of these settings whether it is ready."""

from __future__ import annotations

import http.client
from typing import Annotated

import typer

from feature_store.wording import worded
from service.cli.settings import settings_or_exit
from service.settings import PREFIX, Settings, reached_at

PATIENCE_S = 2.0


def probe(
    port: Annotated[int | None, typer.Option(help="Port, if given to serve.")] = None,
) -> None:
    """Exit with 0 if GET /readyz at QIN_HOST and QIN_PORT answers 200, otherwise with 1.

    For health checks of containers. No proxy is used.
    """
    settings = settings_or_exit({} if port is None else {"port": port})
    if fault := _fault(settings):
        typer.echo(f"not ready: {fault}", err=True)
        raise typer.Exit(1)


def _fault(settings: Settings) -> str | None:
    """The reason why it is not ready."""
    host, port = reached_at(settings.host), settings.port
    if not port:
        return f"{PREFIX}PORT is 0: name the port with --port"
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port}: {worded(error)}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{host}:{port}: {answer.status} {body}"
