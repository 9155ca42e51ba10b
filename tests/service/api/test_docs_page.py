"""``/docs`` in a browser: readable, tried, and nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from service.api.operations import PAGE
from tests.service.process import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def rendered(url: str, profile: Path, *more: str) -> str:
    """The page's elements once its script has run."""
    assert CHROMIUM, "chromium is missing; run: sh tests/ensure_debian.sh chromium chromium"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *more]
    found = subprocess.run(
        [CHROMIUM, *options, "--virtual-time-budget=10000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return found.stdout


def test_the_page_names_nothing_elsewhere(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.content == PAGE
    assert answer.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(rb"(?:src|href)=[\"'](?!data:|openapi\.json)", PAGE)
    assert b"http://" not in PAGE
    assert b"https://" not in PAGE
    assert b"innerHTML" not in PAGE


@pytest.mark.parametrize("port", ["service", "admin"])
def test_a_browser_shows_every_operation_of_the_document(
    service: Service, tmp_path: Path, port: str
) -> None:
    url = service.url if port == "service" else f"http://127.0.0.1:{service.admin_port}"
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    page = rendered(f"{url}/docs", tmp_path)
    assert f"<title>{document['info']['title']}</title>" in page
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in methods.values():
            assert operation.get("summary", "") in page
