"""The console in a real Chromium: logging in, what moves, who is kept out, and its looks."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from feature_store import connect
from tests.ports import free_port
from tests.service.access.test_in_a_browser import site
from tests.service.console.browser import (
    DESKTOP,
    PHONE,
    driver,
    faults_of,
    launched,
    log_in,
    opened_page,
    overflow_of,
    wait_until,
)
from tests.service.console.conftest import (
    ANN,
    BEN,
    QUIET,
    TOKENS,
    Served,
    with_many_versions,
)
from tests.service.console.screenshot import SIZE, take
from tests.service.mapped_world import MappedWorld, make_mapped
from tests.service.process import serving
from tests.service.world import World

FOREIGN = """<!doctype html><title>a page</title><p id="said"></p>
<iframe id="frame" src="%(console)s"></iframe>
<script>
const said = [];
async function tried(what, path, options) {
  try {
    const answer = await fetch("%(origin)s" + path, {credentials: "include", ...options});
    said.push(`${what}: ${answer.type} ${answer.status}`);
  } catch { said.push(`${what}: nothing`); }
}
(async () => {
  await tried("read", "/console/series");
  const form = fields => ({method: "POST", mode: "no-cors", body: new URLSearchParams(fields)});
  await tried("blind", "/console/logout", form({csrf: "x"}));
  await tried("login", "/console/login", form({token: "%(token)s"}));
  await new Promise(done => {
    const stream = new EventSource("%(origin)s/console/stream", {withCredentials: true});
    const ended = what => { said.push(`stream: ${what}`); stream.close(); done(); };
    stream.onopen = () => ended("open");
    stream.onerror = () => ended("nothing");
  });
  document.getElementById("said").textContent = said.join("; ");
})();
</script>"""


LONGEST = "v" * 64  # of a version
HOSTILE = {
    "token": "<script>alert('token')</script>",  # a name
    "item": "<img src=x onerror=alert('item')>",
    "reason": "<svg onload=alert('reason')>",
    "agent": "<script>alert('agent')</script>",
}


@pytest.fixture(scope="module")
def hostile(world: World, tmp_path_factory: pytest.TempPathFactory) -> MappedWorld:
    """Hostile texts of an item and as a file's name of a version, and a folder that is none."""
    folder = tmp_path_factory.mktemp("hostile")
    network = copy(world.network)
    network.schema = world.schema.model_copy(update={"descriptions": True})
    shutil.copytree(world.models, folder / "models")
    mapped = make_mapped(replace(world, network=network, models=folder / "models"), folder)

    async def describe() -> None:
        store = await connect(mapped.store, network.schema)
        await store.put_descriptions({mapped.numbers[mapped.items[0]]: {"en": HOSTILE["item"]}})
        await store.close()

    asyncio.run(describe())
    manifest = json.loads((world.models / "small-1" / "manifest.json").read_text())
    for name in (LONGEST, HOSTILE["reason"]):
        shutil.copytree(world.models / "small-1", made := folder / "models" / name)
        (made / "manifest.json").write_text(json.dumps({**manifest, "version": LONGEST}))
        (made / HOSTILE["reason"]).touch()
    return mapped


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_many_versions(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="module")
def playwright(world: World, hostile: MappedWorld, many: World) -> Iterator[Any]:
    """After the worlds, which are made by ``asyncio.run``."""
    with driver() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    with launched(playwright) as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    with opened_page(browser) as page:
        yield page


def score(served: Served, count: int) -> None:
    with served.service.client() as client:
        for item in served.world.ids[:count].tolist():
            answer = client.post("/v1/score", json={"user_id": 1, "candidates": [item]})
            assert answer.is_success


def test_a_person_logs_in_with_the_keyboard_alone_and_out_again(page: Any, served: Served) -> None:
    page.goto(f"{served.origin}/console")
    page.keyboard.type("wrong-but-long-enough")  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    page.faults.clear()  # the 401
    page.get_by_label("Admin token").focus()
    page.keyboard.type(ANN)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Now").wait_for()
    page.get_by_text("ann", exact=True).wait_for()
    page.get_by_role("button", name="Log out").press("Enter")
    page.get_by_label("Admin token").wait_for()
    page.goto(f"{served.origin}/console")
    page.get_by_label("Admin token").wait_for()


def test_the_numbers_and_the_graphs_move(page: Any, served: Served) -> None:
    log_in(page, served)
    page.locator(".state.live").wait_for()
    page.locator("#latency canvas").wait_for()
    before = page.locator("#latency .u-value").first.inner_text()
    score(served, 60)
    wait_until(page, "document.querySelector('#p99 b').textContent.endsWith('ms')")
    rate = page.locator("#rate b").inner_text()
    assert float(rate) > 0
    shown = "document.querySelector('#latency .u-value').textContent"
    wait_until(page, f"{shown} !== {before!r}")
    label = page.locator("#latency").get_attribute("aria-label")
    assert "p99" in label
    assert "–" not in label
    described = "document.querySelector('#traffic').getAttribute('aria-label')"
    page.get_by_label("1 min", exact=True).check()
    wait_until(page, f"{described}.includes('last minute')")
    page.get_by_label("1 h", exact=True).check()
    wait_until(page, f"{described}.includes('last hour')")


def test_a_page_that_is_not_seen_takes_no_connection(page: Any, served: Served) -> None:
    log_in(page, served)
    page.locator(".state.live").wait_for()
    hide = "value => { Object.defineProperty(document, 'hidden', {value, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    page.get_by_text("paused").wait_for()
    page.evaluate(hide, False)
    page.locator(".state.live").wait_for()


def test_a_session_that_ends_leads_to_the_form_and_back(browser: Any, world: World) -> None:
    short = {"QIN_CONSOLE_SESSION_S": "4", "QIN_ADMIN_TOKEN": f"ann:{ANN}", **QUIET}
    with serving(world.models, world.store, **short) as service, opened_page(browser) as page:
        served = Served(service, world)
        log_in(page, served)
        page.locator(".state.live").wait_for()
        page.wait_for_url("**/console/login?next=%2Fconsole")
        page.get_by_label("Admin token").fill(ANN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Now").wait_for()
        page.faults.clear()  # a 401 of what was asked meanwhile


def test_after_a_restart_the_page_goes_on_by_itself_until_its_token_is_taken_away(
    browser: Any, world: World
) -> None:
    kept = {"QIN_CONSOLE_KEY": "kept-over-restarts", "QIN_ADMIN_PORT": str(free_port()), **QUIET}
    with opened_page(browser) as page:
        with serving(world.models, world.store, QIN_ADMIN_TOKEN=TOKENS, **kept) as service:
            log_in(page, Served(service, world))
            page.locator(".state.live").wait_for()
        page.get_by_text("no connection; trying again").wait_for()
        with serving(world.models, world.store, QIN_ADMIN_TOKEN=TOKENS, **kept):
            page.locator(".state.live").wait_for()
        with serving(world.models, world.store, QIN_ADMIN_TOKEN=f"ben:{BEN}", **kept):
            page.wait_for_url("**/console/login?next=%2Fconsole")
        page.faults.clear()  # connections that were refused, and a 401


def test_pages_of_other_origins_read_nothing_and_do_nothing(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    content = {"console": f"{served.origin}/console", "origin": served.origin, "token": ANN}
    (tmp_path / "page.html").write_text(FOREIGN % content)
    with opened_page(browser) as page, site(tmp_path) as origin:
        log_in(page, served)
        page.locator(".state.live").wait_for()
        log = served.service.log.read_text().count('"action":"login"')
        # Another port of this host is the same site: SameSite alone would let the cookie through.
        for other in (origin, origin.replace("127.0.0.1", "localhost")):
            foreign = page.context.new_page()
            foreign.goto(f"{other}/page.html")
            foreign.wait_for_function("document.getElementById('said').textContent")
            said = foreign.locator("#said").inner_text().split("; ")
            assert said == [
                "read: nothing",
                "blind: nothing",
                "login: nothing",
                "stream: nothing",
            ]
            frame = foreign.frames[1]
            assert "QIN Serving" not in frame.content()
            foreign.close()
        page.reload()
        page.locator(".state.live").wait_for()  # still logged in
        assert served.service.log.read_text().count('"action":"login"') == log


def test_a_rebound_name_sees_no_page(playwright: Any, unguarded: Served) -> None:
    rebound = "--host-resolver-rules=MAP evil.test 127.0.0.1"
    with launched(playwright, rebound) as browser, opened_page(browser) as page:
        answer = page.goto(f"http://evil.test:{unguarded.service.admin_port}/console")
        assert answer.status == 403
        page.faults.clear()
        assert "small-2" not in page.content()


def test_hostile_texts_are_shown_as_text_and_run_nothing(
    browser: Any, hostile: MappedWorld, world: World
) -> None:
    tokens = f"{HOSTILE['token']}:{ANN}"
    with (
        serving(hostile.models, hostile.store, QIN_ADMIN_TOKEN=tokens, **QUIET) as service,
        opened_page(browser, PHONE) as page,
        service.admin(ANN) as api,
    ):
        api.headers["User-Agent"] = HOSTILE["agent"]
        assert not api.post(f"/admin/models/{LONGEST}/load").is_success
        served = Served(service, world)
        log_in(page, served)
        page.locator(".state.live").wait_for()
        assert page.locator(".who .name").inner_text() == HOSTILE["token"]
        for path in ("/console/versions", f"/console/versions/{LONGEST}"):
            page.goto(f"{served.origin}{path}")
            text = page.locator("main").inner_text()
            assert text.count(HOSTILE["reason"]) >= 2  # in the list and in the actions
            assert HOSTILE["token"] in text
            assert overflow_of(page) <= 0
        page.goto(f"{served.origin}/console/try")
        page.get_by_label("User").fill(HOSTILE["item"])
        page.get_by_label("Candidates").fill(json.dumps([HOSTILE["item"], hostile.items[0]]))
        page.get_by_role("button", name="Score").click()
        page.locator(".scores").wait_for()
        text = page.locator("main").inner_text()
        assert text.count(HOSTILE["item"]) >= 3  # an id that is unknown, a text, a user
        assert overflow_of(page) <= 0
        page.goto(f"{served.origin}/console/versions?q={quote(HOSTILE['item'])}")
        assert HOSTILE["item"] in page.locator("main").inner_text()
        page.wait_for_timeout(100)
    assert page.faults == []  # no dialog, nothing that the policy had to stop


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_and_axe_finds_no_serious_fault(
    browser: Any, served: Served, size: tuple[int, int], dark: bool
) -> None:
    with opened_page(browser, size, dark=dark) as page:
        page.goto(f"{served.origin}/console/login")
        assert faults_of(page) == []
        assert overflow_of(page) <= 0
        log_in(page, served)
        page.locator(".state.live").wait_for()
        page.locator("#latency canvas").wait_for()
        assert faults_of(page) == []
        assert overflow_of(page) <= 0
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) is dark


def test_a_phone_shows_why_the_console_reads_only(browser: Any, unguarded: Served) -> None:
    with opened_page(browser, PHONE) as page:
        for path in ("/console", "/console/try"):
            page.goto(f"{unguarded.origin}{path}")
            assert page.get_by_text("QIN_ADMIN_TOKEN is not set").is_visible()
            assert overflow_of(page) <= 0, path
        assert faults_of(page) == []


def test_the_first_view_is_small_and_soon_there(page: Any, served: Served) -> None:
    log_in(page, served)
    sizes = list[int]()
    page.on(
        "response",
        lambda answer: sizes.append(len(answer.body()) if "stream" not in answer.url else 0),
    )
    began = time.monotonic()
    page.context.new_cdp_session(page).send("Network.setCacheDisabled", {"cacheDisabled": True})
    page.goto(f"{served.origin}/console", wait_until="load")
    page.locator("#latency canvas").wait_for()
    took = time.monotonic() - began
    assert sum(sizes) <= 150_000
    assert took < 5  # on a busy machine; the bar is measured by tests.service.measure_console


class Users:
    """Scoring requests at the public port, until the end; what was not answered."""

    def __init__(self, served: Served) -> None:
        self._served, self._ended = served, threading.Event()
        self.asked, self.failed = 0, list[str]()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        ids = self._served.world.ids[:20].tolist()
        with self._served.service.client() as client:
            while not self._ended.is_set():
                answer = client.post("/v1/score", json={"user_id": 1, "candidates": ids})
                self.asked += 1
                if not answer.is_success:
                    self.failed.append(answer.text)
                time.sleep(0.01)


def test_versions_are_loaded_and_switched_under_load_without_a_failed_answer(
    browser: Any, world: World
) -> None:
    tokens = {"QIN_ADMIN_TOKEN": f"ann:{ANN}", **QUIET}
    with serving(world.models, world.store, **tokens) as service, opened_page(browser) as page:
        served = Served(service, world)
        log_in(page, served, path="/console/versions")
        with Users(served) as users:
            page.get_by_role("link", name="small-1").click()
            page.get_by_role("link", name="Load").click()
            page.get_by_role("button", name="Load").click()
            page.locator(".state-ready").wait_for()  # without a reload by hand
            page.get_by_role("link", name="Canary").click()
            slider = page.get_by_label("Share of users")
            slider.focus()
            for _ in range(15):
                page.keyboard.press("ArrowRight")
            assert page.locator("#shown").inner_text() == "20%"
            page.get_by_role("button", name="Canary").click()
            page.get_by_text("canary 20%").first.wait_for()
            page.get_by_role("link", name="Promote").click()
            page.get_by_text("in place of small-2").wait_for()
            page.get_by_role("button", name="Promote").click()
            page.locator(".state-active").wait_for()
            page.get_by_role("link", name="Roll back").click()
            page.get_by_role("button", name="Roll back").click()
            page.locator(".state-ready").wait_for()
            page.goto(f"{served.origin}/console")
            page.locator("#latency canvas").wait_for()
            assert page.locator("#roles").inner_text() == "small-2"
        assert users.asked > 20
        assert users.failed == []
        page.goto(f"{served.origin}/console/versions")
        rows = page.locator("table tbody").last.inner_text()
        assert all(f"ann\t{action}" in rows for action in ("load", "canary", "promote", "rollback"))


def test_one_of_five_hundred_versions_is_found_on_a_phone(browser: Any, many: World) -> None:
    token = {"QIN_ADMIN_TOKEN": f"ann:{ANN}", **QUIET}
    with serving(many.models, many.store, **token) as service, opened_page(browser, PHONE) as page:
        served = Served(service, many)
        log_in(page, served, path="/console/versions")
        page.get_by_text("502 versions").wait_for()
        assert faults_of(page) == []
        assert overflow_of(page) <= 0
        page.get_by_role("link", name="older").click()
        page.get_by_text("page 2 of 11").wait_for()
        page.goto(f"{served.origin}/console/versions?q=many-499")
        page.get_by_role("link", name="many-499").click()
        page.get_by_role("heading", name="many-499").wait_for()
        assert overflow_of(page) <= 0


def test_a_score_is_tried_and_explained(page: Any, served: Served) -> None:
    log_in(page, served, path="/console/try")
    page.get_by_label("User").fill("7")
    page.get_by_label("Random", exact=True).fill("6")
    page.get_by_text("History and features of the request").click()
    page.get_by_role("button", name="Score").click()
    page.locator(".scores").wait_for()
    assert page.locator(".scores > tbody > tr").count() == 6
    assert page.get_by_label("Request features").is_visible()  # still unfolded
    page.get_by_text("History and features of the request").click()
    page.get_by_role("button", name="Score").click()
    page.locator("#more:not([open])").wait_for()
    page.locator(".why summary").first.click()
    page.get_by_text("History items that its interest came from").first.wait_for()
    widths = page.locator("svg.bar rect:not(.well)").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 50


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_pages_of_versions_and_scores_fit_and_axe_finds_no_serious_fault(
    browser: Any, served: Served, size: tuple[int, int], dark: bool
) -> None:
    with opened_page(browser, size, dark=dark) as page:
        log_in(page, served, path="/console/versions")
        for path in ("", "/small-1", "/small-2", "/small-1/canary"):
            page.goto(f"{served.origin}/console/versions{path}")
            assert faults_of(page) == [], path
            assert overflow_of(page) <= 0, path
        page.goto(f"{served.origin}/console/try")
        page.get_by_label("User").fill(str(2**63 - 1))
        page.get_by_role("button", name="Score").click()
        page.locator(".scores").wait_for()
        assert faults_of(page) == []
        assert overflow_of(page) <= 0


def test_the_picture_of_the_readme_is_taken(browser: Any, world: World, tmp_path: Path) -> None:
    picture = tmp_path / "console.png"
    take(browser, world, picture, seconds=4)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == SIZE
    assert len(content) > 20_000


def test_the_page_of_load_fits_and_axe_finds_no_serious_fault(browser: Any, world: World) -> None:
    """While a load test runs and afterwards."""
    on = {"QIN_CONSOLE_LOADTEST": "on", "QIN_ADMIN_TOKEN": f"ann:{ANN}", **QUIET}
    with serving(world.models, world.store, **on) as service, ExitStack() as stack:
        earlier = service.private / "load" / "20260101T000000-abcdef"
        earlier.mkdir(0o700, parents=True)
        plan = {"kind": "search", "rate": 100.0, "seconds": 30, "candidates": 64}
        begun = {"plan": plan, "who": "a person of a long name", "began": 1.7e9}
        (earlier / "plan.json").write_text(json.dumps(begun))
        (earlier / "end.json").write_text(json.dumps({"ended": 1.7e9, "outcome": "done"}))
        (earlier / "report.html").touch()
        pages = [
            stack.enter_context(opened_page(browser, size, dark=dark))
            for size, dark in ((DESKTOP, False), (PHONE, True))
        ]
        for page in pages:
            log_in(page, Served(service, world), path="/console/load")
        page.get_by_label("Requests/s").fill("20")
        page.get_by_label("Seconds").fill("4")
        page.get_by_label("to confirm").fill("load this service")
        page.get_by_role("button", name="Start").click()
        for page in pages:  # without a reload
            page.get_by_role("button", name="Stop").wait_for()
            assert faults_of(page) == []
            assert overflow_of(page) <= 0
        for page in pages:
            page.get_by_role("link", name="report", exact=True).wait_for(timeout=120_000)
            assert faults_of(page) == []
            assert overflow_of(page) <= 0
