"""Renders the console's pages and sets the headers that keep them to themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jinja2
from starlette.responses import Response

from service.console.assets import ROOT, Assets
from service.console.guard import Visitor
from service.settings import Settings

# Scripts and styles are files of this service; no page frames these, no form goes elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TABS = (
    ("now", "/console", "Now"),
    ("versions", "/console/versions", "Versions"),
    ("try", "/console/try", "Try it"),
)
LOAD = ("load", "/console/load", "Load")  # with QIN_CONSOLE_LOADTEST
OF_TAB = {"version": "versions", "confirm": "versions"}  # templates that are no tab of their own


class Pages:
    """All templates, compiled once. What a template is given is escaped."""

    def __init__(self, settings: Settings, assets: Assets) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(ROOT / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "asset": assets.address,
            "tabs": (*TABS, *([LOAD] if settings.console_loadtest else [])),
            "model_name": settings.model_name,
        }
        self._environment.filters |= {
            "ago": ago,
            "iso": iso,
            "milliseconds": milliseconds,
            "number": number,
            "size": size,
        }

    def page(
        self, name: str, visitor: Visitor | None, status: int = 200, /, **content: Any
    ) -> Response:
        """Render a page; without a ``visitor``, one that shows nothing of the service."""
        return Response(
            self.text(name, visitor=visitor, tab=OF_TAB.get(name, name), **content),
            status,
            HEADERS,
            media_type="text/html",
        )

    def text(self, name: str, /, **content: Any) -> str:
        return self._environment.get_template(f"{name}.html.j2").render(**content)


def number(value: float | None) -> str:
    """Write a number with the digits that say something: 0.42, 3.7, 128, 12,400."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = 2 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def size(count: int) -> str:
    """Write a number of bytes."""
    for power, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= power:
            return f"{count / power:.3g} {unit}"
    return f"{count} bytes"


def iso(at: str | float | datetime) -> str:
    """Write a time, given in seconds since the epoch or as text, to the second."""
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else _moment(at)
    return moment.astimezone(UTC).isoformat(" ", "seconds").replace("+00:00", "Z")


def ago(at: str | float | datetime) -> str:
    """Write how long ago it was."""
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else _moment(at)
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 0:
        return "to come"
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _moment(at: str | datetime) -> datetime:
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} ms"
