"""``python -m service models``: commands for the admin API."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Annotated, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_store.wording import worded
from service.settings import is_loopback

app = typer.Typer(
    help="List, load, activate and roll back model versions of a running service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

Url = Annotated[str, typer.Option("--admin", envvar="QIN_ADMIN_URL", help="URL of the admin API.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Version = Annotated[str, typer.Argument(help="A version in the models folder, or an alias.")]
Share = Annotated[float, typer.Option(min=0, max=1, help="Share of users or requests; 0 stops it.")]
LOCAL = "http://127.0.0.1:8001"
TIMEOUT_S = 600.0  # a load is answered at its end
COLOURS = {"active": "bold green", "ready": "green", "failed": "bold red", "draining": "yellow"}

ALWAYS = ("version", "state")  # other columns only if they have values
NUMBERS = ("answers", "under way", "items", "load s")
COLUMNS = (*ALWAYS, "role", "published", *NUMBERS, "step")


@app.command("list")
def list_versions(admin: Url = LOCAL, as_json: AsJson = False) -> None:
    """List versions and their states, and what each process of the fleet serves."""
    with _refusals():
        content = _call(admin, "GET", "")
        _show(content) if not as_json else _print_json(content)


@app.command()
def load(version: Version, admin: Url = LOCAL, as_json: AsJson = False) -> None:
    """Verify a version and load it into memory; the active version goes on serving."""
    _do(admin, f"/{_quoted(version)}/load", None, as_json)


@app.command()
def activate(version: Version, admin: Url = LOCAL, as_json: AsJson = False) -> None:
    """Make a version active; it is loaded first if necessary."""
    _do(admin, f"/{_quoted(version)}/activate", None, as_json)


@app.command()
def unload(version: Version, admin: Url = LOCAL, as_json: AsJson = False) -> None:
    """Remove a version from memory after its last answer."""
    _do(admin, f"/{_quoted(version)}/unload", None, as_json)


@app.command()
def canary(
    version: Version, share: Share = 0.05, admin: Url = LOCAL, as_json: AsJson = False
) -> None:
    """Serve a share of the users, always the same ones, with a version."""
    _do(admin, f"/{_quoted(version)}/canary", {"share": share}, as_json)


@app.command()
def shadow(
    version: Version, share: Share = 0.05, admin: Url = LOCAL, as_json: AsJson = False
) -> None:
    """Let a version score copies of a share of the requests, without answering any."""
    _do(admin, f"/{_quoted(version)}/shadow", {"share": share}, as_json)


@app.command()
def promote(admin: Url = LOCAL, as_json: AsJson = False) -> None:
    """Make the canary active, or else the shadow."""
    _do(admin, "/promote", None, as_json)


@app.command()
def rollback(admin: Url = LOCAL, as_json: AsJson = False) -> None:
    """Make the previous version active again."""
    _do(admin, "/rollback", None, as_json)


def _do(admin: str, path: str, body: dict[str, Any] | None, as_json: bool) -> None:
    with _refusals():
        answer = _call(admin, "POST", path, body)
        if as_json:
            _print_json(answer)
        else:
            state = Text(answer["state"], style=COLOURS.get(answer["state"], ""))
            part = f", {_part(path.rpartition('/')[2], body['share'])}" if body else ""
            Console().print(Text(f"{answer['version']}: ").append(state).append(part))


def _call(admin: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON of the answer. AdminError: the reason."""
    if "@" in admin:  # not repeated: it may be a password
        raise AdminError("--admin: no user name and password; QIN_ADMIN_TOKEN is the token")
    if not _is_url(admin):
        raise AdminError(f"--admin: must be an HTTP URL such as {LOCAL}, got {admin!r}")
    request = Request(  # noqa: S310 — http or https, as just checked
        f"{admin.rstrip('/')}/admin/models{path}",
        method=method,
        data=None if body is None else orjson.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    if tokens := os.environ.get("QIN_ADMIN_TOKEN", "").split():
        request.add_header("Authorization", f"Bearer {tokens[0].rpartition(':')[2]}")
    try:
        with _opener(admin).open(request, timeout=TIMEOUT_S) as answer:
            content = orjson.loads(answer.read())
    except HTTPError as error:
        raise AdminError(_reason(error)) from None
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        reason = worded(reason) if isinstance(reason, OSError) else reason
        raise AdminError(f"{admin}: no answer ({reason}); is the service running?") from None
    except (orjson.JSONDecodeError, HTTPException):
        content = None
    if not isinstance(content, dict):
        raise AdminError(f"{admin}: is no admin API; --admin is the URL of QIN_ADMIN_PORT")
    return content


def _is_url(admin: str) -> bool:
    try:
        at = urlsplit(admin)
        return at.scheme in ("http", "https") and bool(at.hostname) and at.port != 0
    except ValueError:  # of brackets or the port
        return False


def _opener(url: str) -> OpenerDirector:
    """An opener that uses the environment's proxies, but for this machine's own addresses."""
    if is_loopback(urlsplit(url).hostname or ""):
        return build_opener(ProxyHandler({}))
    return build_opener()


class AdminError(Exception):
    """The service refused, or did not answer."""


def _reason(error: HTTPError) -> str:
    try:
        return str(orjson.loads(error.read())["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _show(content: dict[str, Any]) -> None:
    console = Console()
    rows = [_row(model, content) for model in content["models"]]
    table = Table(box=None, header_style="bold")
    shown = [name for name in COLUMNS if name in ALWAYS or any(row[name] for row in rows)]
    for name in shown:
        # Versions are not wrapped: they are arguments of other commands.
        side: Literal["left", "right"] = "right" if name in NUMBERS else "left"
        table.add_column(name, justify=side, overflow="fold", no_wrap=name in ALWAYS)
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    console.print(table)
    for model in content["models"]:  # lines of their own: reasons are long, and may be copied
        if model["reason"]:
            console.print(
                Text(f"{model['version']}: {model['reason']}"), soft_wrap=True, highlight=False
            )
    shadow = content["shadow"]
    if shadow and shadow["requests"]:
        console.print(
            f"shadow {shadow['version']}: {shadow['requests']:,} requests, mean |Δp| "
            f"{shadow['mean_abs_delta_p']:.2g}, worst {shadow['worst_abs_delta_p']:.2g}, "
            f"Kendall τ {shadow['kendall_tau']:.3f}"
        )
    for process in content.get("processes", []):
        fault = f": {process['fault']}" if process["fault"] else ""
        console.print(
            f"process {process['host']}:{process['pid']} serves {process['active']}{fault}",
            markup=False,
        )


def _row(model: dict[str, Any], content: dict[str, Any]) -> dict[str, Text | str]:
    """Cells by column; empty if there is no value."""
    return {
        "version": model["version"],
        "state": Text(model["state"], style=COLOURS.get(model["state"], "")),
        "role": ", ".join(_role(role, content) for role in model["roles"]),
        "published": _ago(model["created"]),
        "answers": f"{model['answers']:,}" if model["answers"] else "",
        "under way": f"{model['requests_under_way']:,}" if model["requests_under_way"] else "",
        "items": f"{model['items']:,}" if model["items"] else "",
        "load s": f"{model['load_seconds']:.1f}" if model["load_seconds"] else "",
        "step": "" if model["reason"] else Text(model["step"] or ""),
    }


def _role(role: str, content: dict[str, Any]) -> str:
    part = content.get(role)
    return _part(role, part["share"]) if isinstance(part, dict) else role


def _part(role: str, share: float) -> str:
    return f"{role} {100 * share:.3g}%"


def _ago(created: str | None) -> str:
    if created is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def _quoted(version: str) -> str:
    return quote(version, safe="")


@contextmanager
def _refusals() -> Iterator[None]:
    """Report a refusal as one line on stderr and exit status 1."""
    try:
        yield
    except AdminError as error:
        typer.echo(f"refused: {error}", err=True)
        raise typer.Exit(1) from None


def _print_json(content: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()
