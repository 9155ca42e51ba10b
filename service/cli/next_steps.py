"""``serve --example``: what to open next, and how to stop."""

from __future__ import annotations

import typer


def show_next_steps(url: str, console: str | None) -> None:
    """Print the addresses for a browser. ``console``: None if it is off."""
    pages = {f"{url}/docs": "the API, with requests to try"}
    if console is not None:
        pages[console] = "the console: requests, latency, versions, why an item scores as it does"
    width = max(map(len, pages))
    lines = [f"  {page:{width}}  {what}" for page, what in pages.items()]
    typer.echo("\n".join(["In a browser:", *lines, "Ctrl-C stops the service."]))
