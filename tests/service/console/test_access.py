"""Who may see the console, and what pages of other origins can do: nothing."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.ports import free_port
from tests.service.console.conftest import (
    ANN,
    BEN,
    QUIET,
    TOKENS,
    Served,
    browser_of,
    csrf_of,
    log_in,
    noted,
)
from tests.service.process import serving
from tests.service.world import World

PAGES = ["/console"]
DATA = ["/console/stream", "/console/series"]


def test_without_a_session_a_page_leads_to_the_form(anonymous: httpx.Client) -> None:
    for path in PAGES:
        answer = anonymous.get(path)
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            "/console/login?next=/console",
        )
    for path in ("/console/", "/"):
        assert anonymous.get(path).headers["location"] == "/console"
    form = anonymous.get("/console/login?next=/console")
    assert 'name="token"' in form.text
    for path in DATA:
        refused = anonymous.get(path)
        assert refused.status_code == 401
        assert refused.json()["type"] == "urn:qin:problem:unauthorised"


def test_a_wrong_token_is_refused_and_written_down(served: Served, anonymous: httpx.Client) -> None:
    answer = log_in(anonymous, "wrong-but-long-enough")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "This token is not known here." in answer.text
    lines = [json.loads(line) for line in noted(served.service.log).splitlines()]
    last = [line for line in lines if line["event"] == "admin"][-1]
    assert (last["action"], last["who"], last["outcome"]) == ("login", "anonymous", "unauthorised")


def test_the_cookie_is_for_this_port_alone_and_no_script_reads_it(
    served: Served, anonymous: httpx.Client
) -> None:
    cookie = log_in(anonymous).headers["set-cookie"]
    name, *parts = cookie.split("; ")
    assert name.startswith(f"qin_console_{served.service.admin_port}=")
    assert {part.lower() for part in parts} == {
        "httponly",
        "samesite=strict",
        "path=/console",
        "max-age=28800",
    } | {part.lower() for part in parts if part.startswith("expires")}
    assert ANN not in cookie
    assert "ann" in anonymous.get("/console").text


def test_a_session_is_no_token_of_the_admin_api(ann: httpx.Client, served: Served) -> None:
    with served.service.admin() as api:
        api.cookies.update(ann.cookies)
        assert api.get("/admin/models").status_code == 401


def test_every_page_may_not_be_framed_nor_run_foreign_scripts(
    ann: httpx.Client, anonymous: httpx.Client
) -> None:
    for answer in (ann.get("/console"), anonymous.get("/console/login"), ann.get("/console/none")):
        policy = answer.headers.get("content-security-policy", "")
        if answer.status_code == 404:  # the framework's own
            continue
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ],
)
def test_another_origin_is_refused_even_with_cookie_and_csrf_token(
    served: Served, ann: httpx.Client, headers: dict[str, str]
) -> None:
    csrf, cookie = csrf_of(ann), dict(ann.cookies)
    foreign = httpx.Client(base_url=served.origin, cookies=cookie, headers=headers, trust_env=False)
    with foreign:
        for path in ("/console/login", "/console/logout"):
            answer = foreign.post(path, data={"token": ANN, "csrf": csrf})
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        for path in DATA:
            assert foreign.get(path).status_code == 403


def test_a_link_from_elsewhere_opens_a_page_but_not_what_a_script_would_read(
    served: Served,
) -> None:
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    with served.service.admin() as client:
        assert client.get("/console", headers=linked).status_code == 303
        assert client.get("/console/series", headers=linked).status_code == 403
        assert client.post("/console/login", headers=linked).status_code == 403


def test_a_command_needs_the_token_of_its_page(ann: httpx.Client) -> None:
    for csrf in ("", "0" * 64, "é"):
        assert ann.post("/console/logout", data={"csrf": csrf}).status_code == 403
    other = ann.post("/console/logout", data={"csrf": csrf_of(ann)})
    assert other.status_code == 303
    assert ann.get("/console").status_code == 303  # the cookie is gone


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ("/console", "/console"),
        ("/console/versions?page=2", "/console/versions?page=2"),
        ("//evil.example/console", "/console"),
        ("https://evil.example/console", "/console"),
        ("/console/../admin", "/console"),
        ("/consoles", "/console"),
        ("/console\\evil", "/console"),
        ("", "/console"),
        ("//[", "/console"),
        ("http://[::1", "/console"),
        ("/console?x=\r\nSet-Cookie: a=b", "/console?x=Set-Cookie:%20a=b"),
        ("/console?x=\u2028é", "/console?x=%E2%80%A8%C3%A9"),
    ],
)
def test_after_the_log_in_comes_a_page_of_the_console(
    anonymous: httpx.Client, wanted: str, where: str
) -> None:
    answer = anonymous.post("/console/login", data={"token": ANN, "next": wanted})
    assert answer.headers["location"] == where


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 401),
        (b"\xff\xfe", 422),
        (b"&".join(b"a=1" for _ in range(100)), 422),
        (b"token=" + b"x" * 70_000, 413),
    ],
)
def test_a_form_that_is_none_is_refused(anonymous: httpx.Client, body: bytes, status: int) -> None:
    answer = anonymous.post("/console/login", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")


def test_other_cookies_of_this_host_change_nothing(served: Served, ann: httpx.Client) -> None:
    """Services of other ports set them, a hostile page under the console's own name, too."""
    ((name, good),) = ann.cookies.items()
    for header in (
        f'theirs={{"a":1}}; {name}={good}',
        f"{name}=planted; {name}={good}",
        f"{name}={'x' * 2000}; {name}={good}",
        f"=; ;;a b c; {name} = ; {name}={good}",
    ):
        with served.service.admin() as client:
            assert client.get("/console", headers={"Cookie": header}).status_code == 200, header


def test_cookies_without_end_are_refused_or_passed_over(served: Served) -> None:
    name = f"qin_console_{served.service.admin_port}"
    with served.service.admin() as client:
        many = {"Cookie": "; ".join([f"{name}=a.b"] * 600)}
        assert client.get("/console", headers=many).status_code == 303
        huge = {"Cookie": f"{name}={'x' * 20_000}"}
        assert client.get("/console", headers=huge).status_code == 431


def test_a_log_in_takes_over_no_cookie_and_no_other_sessions_token(
    served: Served, ann: httpx.Client
) -> None:
    with browser_of(served) as ben:
        ben.cookies.update(ann.cookies)  # planted
        assert log_in(ben, BEN).status_code == 303
        (cookie,) = set(ben.cookies.values()) - set(ann.cookies.values())
        ben.cookies.clear()
        ben.cookies.set(f"qin_console_{served.service.admin_port}", cookie)
        assert "ben" in ben.get("/console").text
        assert ben.post("/console/logout", data={"csrf": csrf_of(ann)}).status_code == 403
        assert ben.get("/console").status_code == 200


def test_a_session_that_was_logged_out_is_refused(served: Served, ann: httpx.Client) -> None:
    cookies = dict(ann.cookies)
    assert ann.post("/console/logout", data={"csrf": csrf_of(ann)}).status_code == 303
    for path, status in (("/console", 303), ("/console/series", 401), ("/console/stream", 401)):
        with browser_of(served) as client:
            client.cookies.update(cookies)
            assert client.get(path).status_code == status
    with served.service.admin() as client:
        log_in(client)
        assert "<td>logout</td>" in client.get("/console/versions").text


def test_strangers_push_no_action_out_of_the_list(served: Served, ann: httpx.Client) -> None:
    with served.service.admin("wrong-but-long-enough") as stranger:
        for _ in range(30):
            assert log_in(stranger, "wrong-but-long-enough").status_code == 401
            assert stranger.post("/admin/models/small-1/load").status_code == 401
    rows = ann.get("/console/versions").text.partition("trail-title")[2]
    assert "<td>ann</td><td>login</td>" in rows
    assert "unauthorised" not in rows
    assert noted(served.service.log).count('"outcome":"unauthorised"') >= 60


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_no_other_method_does_anything(ann: httpx.Client, method: str) -> None:
    csrf = csrf_of(ann)
    for path in ("/console/logout", "/console/versions/small-2/unload"):
        overriding = {"X-HTTP-Method-Override": "POST", "X-Method-Override": "POST"}
        answer = ann.request(
            method, path, params={"csrf": csrf, "_method": "POST"}, headers=overriding
        )
        assert answer.status_code == (200 if method == "GET" and "unload" in path else 405)
    assert ann.get("/console").status_code == 200


def test_a_session_survives_a_restart_with_the_key_and_ends_with_its_token(world: World) -> None:
    port = {"QIN_ADMIN_PORT": str(free_port())}
    key = {"QIN_CONSOLE_KEY": "kept-over-restarts-of-this", **port, **QUIET}
    cookie, statuses = "", list[int]()
    for tokens in (TOKENS, TOKENS, f"ben:{BEN}"):
        with (
            serving(world.models, world.store, QIN_ADMIN_TOKEN=tokens, **key) as service,
            browser_of(Served(service, world)) as client,
        ):
            if not cookie:
                log_in(client)
                (cookie,) = client.cookies.values()
            client.cookies.set(f"qin_console_{service.admin_port}", cookie)
            statuses.append(client.get("/console").status_code)
    assert statuses == [200, 200, 303]


def test_without_tokens_it_opens_to_be_read_by_this_machines_name_alone(
    unguarded: Served,
) -> None:
    with browser_of(unguarded) as client:
        page = client.get("/console")
        assert page.status_code == 200
        assert ">read-only: QIN_ADMIN_TOKEN is not set<" in page.text  # as text: for phones, too
        assert client.get("/console/login").headers["location"] == "/console"
        for host in ("evil.example", "127.0.0.1.evil.example:8001"):
            headers = {"Host": host, "Origin": f"http://{host}"}
            assert client.get("/console", headers=headers).status_code == 403
            assert client.get("/console/series", headers=headers).status_code == 403


def test_it_can_be_switched_off(world: World) -> None:
    with (
        serving(world.models, world.store, QIN_CONSOLE="off", **QUIET) as service,
        service.admin() as client,
    ):
        assert client.get("/console").status_code == 404
        assert client.get("/").json()["detail"] == "no page; /docs describes the API"
        assert client.get("/admin/models").status_code == 200


def test_files_are_cached_for_ever_and_unknown_ones_are_not_there(ann: httpx.Client) -> None:
    page = ann.get("/console").text
    for address in {part.split('"')[0] for part in page.split('="') if "/assets/" in part[:20]}:
        answer = ann.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("0/console.css", "../routes.py", "x/..%2f..%2froutes.py"):
        assert ann.get(f"/console/assets/{path}").status_code == 404


def test_the_public_port_has_no_console(served: Served) -> None:
    with served.service.client() as client:
        assert client.get("/console").status_code == 404
