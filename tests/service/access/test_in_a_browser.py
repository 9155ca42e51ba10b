"""The same with a real browser: pages of other sites change and read nothing, listed ones may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.service.api.test_docs_page import rendered
from tests.service.process import Service, serving
from tests.service.world import World, make_world

PAGE = """<!doctype html><title>a page</title><p id="said"></p><script>
const service = "%s", said = [], click = JSON.stringify({user_id: 1, item_id: %d});
const json = {"Content-Type": "application/json", "X-Request-Id": "of-a-page"};
async function tried(what, path, options) {
  try {
    const answer = await fetch(service + path, options);
    said.push(`${what}: ${answer.type} ${answer.status} ${answer.headers.get("x-request-id")}`);
  } catch { said.push(`${what}: nothing`); }
}
(async () => {
  await tried("unasked", "/v1/events", {method: "POST", mode: "no-cors", body: click});
  await tried("plain", "/v1/events", {method: "POST", body: click});
  await tried("json", "/v1/events", {method: "POST", headers: json, body: click});
  await tried("delete", "/v1/items/%d", {method: "DELETE"});
  await tried("read", "/v1/items/%d");
  document.getElementById("said").textContent = said.join("; ");
})();
</script>"""


@pytest.fixture
def written(tmp_path: Path) -> World:
    """Of one test: it is written to."""
    return make_world(tmp_path, items=40, users=3)


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Another site of this machine: its origin."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def outcome(
    world: World, tmp_path: Path, start: Callable[[str], AbstractContextManager[Service]]
) -> tuple[str, int, bool]:
    """What the page could do, the clicks there are then, and whether the item is there."""
    kept, deleted = int(world.ids[0]), int(world.ids[1])
    folder = tmp_path / "site"
    folder.mkdir()
    with site(folder) as origin, start(origin) as service:
        page = PAGE % (service.url, kept, deleted, kept)
        (folder / "page.html").write_text(page)
        with service.client() as client:
            said = rendered(f"{origin}/page.html", tmp_path / "profile")
            there = client.get(f"/v1/items/{deleted}").status_code == 200
            metrics = client.get("/metrics").text
    applied = [
        line for line in metrics.splitlines() if 'qin_events_total{result="applied"}' in line
    ]
    clicks = int(float(applied[0].split()[1])) if applied else 0
    return said.partition('id="said">')[2].partition("</p>")[0], clicks, there


def test_a_page_of_another_site_changes_and_reads_nothing(written: World, tmp_path: Path) -> None:
    said, clicks, there = outcome(
        written,
        tmp_path,
        lambda origin: serving(written.models, written.store),
    )
    unasked, *others = said.split("; ")
    assert unasked == "unasked: opaque 0 null"  # it cannot even be told that it is refused
    assert others == ["plain: nothing", "json: nothing", "delete: nothing", "read: nothing"]
    assert (clicks, there) == (0, True)


def test_a_listed_page_writes_as_json_and_reads_what_it_is_answered(
    written: World, tmp_path: Path
) -> None:
    said, clicks, there = outcome(
        written,
        tmp_path,
        lambda origin: serving(written.models, written.store, QIN_CORS_ORIGINS=origin),
    )
    steps = said.split("; ")
    assert [step.split(": ")[0] for step in steps] == ["unasked", "plain", "json", "delete", "read"]
    assert [step.split()[2] for step in steps] == ["0", "415", "200", "204", "200"]
    assert steps[2].endswith(" of-a-page")
    assert (clicks, there) == (1, False)


def test_a_rebound_name_is_refused_before_its_page_has_a_script(
    service: Service, tmp_path: Path
) -> None:
    """The browser takes this service for evil.test's own, so Origin and CORS protect nothing."""
    rebound = "--host-resolver-rules=MAP evil.test 127.0.0.1"
    page = rendered(f"http://evil.test:{service.port}/docs", tmp_path / "profile", rebound)
    assert "QIN_ALLOWED_HOSTS" in page
    assert "<script>" not in page


def test_the_api_page_shows_what_there_is_or_asks_for_a_key(written: World, tmp_path: Path) -> None:
    key = "key-of-a-person-who-looks"
    with serving(written.models, written.store, QIN_API_KEYS=f"me:{key}") as service:
        page = rendered(f"{service.url}/docs", tmp_path / "profile")
        assert '<form id="locked"><p>This service asks for an API key.' in page
        assert "/v1/score" not in page.partition("<script>")[0]
        asked = httpx.get(f"{service.url}/docs", trust_env=False)
        assert asked.status_code == 200
