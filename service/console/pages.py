"""Renders the console's pages and sets the headers that keep them to themselves."""

from __future__ import annotations

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
TABS = (("now", "/console", "Now"),)


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
            "tabs": TABS,
            "model_name": settings.model_name,
        }
        self._environment.filters |= {"number": number, "milliseconds": milliseconds}

    def page(
        self, name: str, visitor: Visitor | None, status: int = 200, /, **content: Any
    ) -> Response:
        """Render a page; without a ``visitor``, one that shows nothing of the service."""
        return Response(
            self.text(name, visitor=visitor, tab=name, **content),
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


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} ms"
