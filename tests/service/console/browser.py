"""Pages of the console in a real Chromium, driven by Playwright (the extra ``browser``)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.service.console.conftest import ANN, Served

DESKTOP, PHONE = (1280, 900), (360, 780)
SERIOUS = {"serious", "critical"}
PATIENCE_MS = 30_000


def needed() -> Any:
    """Playwright's interface; skips where the extra or the browser is missing."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra browser: pip install -e '.[browser]'"
    )
    if chromium() is None:
        pytest.skip("needs Chromium: sh tests/ensure_debian.sh chromium chromium")
    return api


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def driver() -> Iterator[Any]:
    """Playwright. Within, its event loop runs: ``asyncio.run`` fails."""
    with needed().sync_playwright() as playwright:
        yield playwright


@contextmanager
def launched(playwright: Any, *options: str) -> Iterator[Any]:
    """A browser."""
    browser = playwright.chromium.launch(
        executable_path=chromium(), args=["--no-sandbox", *options]
    )
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def opened_page(
    browser: Any, size: tuple[int, int] = DESKTOP, *, dark: bool = False
) -> Iterator[Any]:
    """A page with cookies of its own; fails on an error of its scripts or its policy."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE_MS)
    page, faults = context.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    page.faults = faults
    try:
        yield page
    finally:
        context.close()
    assert not faults, faults


def log_in(page: Any, served: Served, token: str = ANN, path: str = "/console") -> None:
    page.goto(f"{served.origin}{path}")
    page.get_by_label("Admin token").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{served.origin}{path}")


def wait_until(page: Any, expression: str) -> None:
    """Poll in the page; its policy forbids what Playwright's own waiting evaluates."""
    deadline = time.monotonic() + PATIENCE_MS / 1e3
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never: {expression}"
        page.wait_for_timeout(50)


def faults_of(page: Any) -> list[str]:
    """What axe-core finds that is serious."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs the extra browser"
    )
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def overflow_of(page: Any) -> int:
    """Pixels that the page is wider than its window."""
    found: int = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    return found
