"""Who may write: at which port clicks and items' features are taken, and what the other says."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from service.api.admin import create_admin
from service.settings import Settings
from service.state import ServiceState
from tests.service.in_process import client_of, opened
from tests.service.process import start
from tests.service.world import World, make_world

TOKEN = "a-token-of-the-admin-port"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
WRITES = [("PUT", "/v1/items/1"), ("PATCH", "/v1/items/1"), ("DELETE", "/v1/items/1")]
EVENTS = [("POST", "/v1/events")]
CLICK = {"user_id": 1, "item_id": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of this file's own: it is written to."""
    return make_world(tmp_path_factory.mktemp("placement"), items=40, users=3)


def admin_of(state: ServiceState) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_admin(state))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def settings(**changed: Any) -> Settings:
    return Settings(**changed)


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [
        ("127.0.0.1", None, "service"),
        ("::1", None, "service"),
        ("localhost", TOKEN, "service"),
        ("0.0.0.0", TOKEN, "admin"),
        ("0.0.0.0", None, "off"),
        ("::", None, "off"),
        ("192.0.2.7", TOKEN, "admin"),
    ],
)
def test_auto_is_the_public_port_on_loopback_and_else_what_has_a_token(
    host: str, token: str | None, expected: str
) -> None:
    chosen = settings(host=host, admin_token=token)
    assert (chosen.writes_at, chosen.events_at) == (expected, expected)


@pytest.mark.parametrize("place", ["service", "admin", "off"])
def test_what_is_chosen_holds_wherever_the_service_listens(place: str) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        chosen = settings(host=host, writes_on=place)
        assert (chosen.writes_at, chosen.events_at) == (place, settings(host=host).events_at)


def test_another_place_is_refused() -> None:
    with pytest.raises(ValidationError):
        settings(events_on="public")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"writes_on": "off", "events_on": "off"}, "are off (QIN_{}=off)"),
        (
            {"writes_on": "admin", "events_on": "admin", "admin_token": TOKEN},
            "are taken at the admin port alone (QIN_{}=admin)",
        ),
        ({"host": "0.0.0.0"}, "are off (QIN_{}=auto: the service is not on a loopback address"),
        (
            {"host": "0.0.0.0", "admin_token": TOKEN},
            "are taken at the admin port alone (QIN_{}=auto",
        ),
    ],
)
async def test_the_public_port_refuses_with_the_setting_and_changes_nothing(
    world: World, changed: dict[str, Any], said: str
) -> None:
    item = int(world.ids[0])
    async with opened(world, **changed) as state, client_of(state) as client:
        before = (await client.get(f"/v1/items/{item}")).json()
        history = await state.store.history(1)
        for name, calls in (("WRITES_ON", WRITES), ("EVENTS_ON", EVENTS)):
            for method, path in calls:
                path = path.replace("/1", f"/{item}")
                refused = await client.request(method, path, json=CLICK, headers=BEARER)
                assert refused.status_code == 403, refused.text
                assert said.format(name) in refused.json()["detail"]
        assert (await client.get(f"/v1/items/{item}")).json() == before
        after = await state.store.history(1)
        assert str(after) == str(history)
        body = {"user_id": 1, "candidates": [item]}
        assert (await client.post("/v1/score", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("variables", "decided", "warned"),
    [
        ({}, ["off", "off"], False),
        ({"QIN_ADMIN_TOKEN": TOKEN}, ["admin", "admin"], False),
        ({"QIN_EVENTS_ON": "service"}, ["off", "service"], True),
        ({"QIN_EVENTS_ON": "service", "QIN_API_KEYS": f"shop:{TOKEN}"}, ["off", "service"], False),
        ({"QIN_HOST": "127.0.0.1"}, ["service", "service"], False),
    ],
)
def test_the_start_says_who_may_write_and_warns_where_any_caller_may(
    variables: dict[str, str], decided: list[str], warned: bool
) -> None:
    ended = start("--bundle", "none", **{"QIN_HOST": "0.0.0.0", **variables})
    ended.process.wait(30)
    lines = [json.loads(t) for t in ended.log.read_text().splitlines() if t.startswith("{")]
    (said,) = [line for line in lines if line["event"] == "access"]
    assert [said["item_writes"], said["events"]] == decided
    assert TOKEN not in ended.log.read_text()
    assert any("without an API key" in line["event"] for line in lines) is warned
    ended.remove()


async def test_on_the_admin_port_writes_take_its_token(world: World) -> None:
    item = int(world.ids[1])
    changed = {"writes_on": "admin", "events_on": "admin", "admin_token": f"ann:{TOKEN}"}
    async with (
        opened(world, **changed) as state,
        admin_of(state) as admin,
        client_of(state) as client,
    ):
        url, change = f"/v1/items/{item}", {"likes_level": 5}
        for headers, status in (({}, 401), ({**BEARER, "Origin": "http://127.0.0.1"}, 403)):
            for method, path in (("PATCH", url), ("DELETE", url), ("POST", "/v1/events")):
                refused = await admin.request(method, path, json=change, headers=headers)
                assert refused.status_code == status
        assert (await admin.patch(url, json=change, headers=BEARER)).status_code == 204
        values = (await client.get(url)).json()
        assert values["likes_level"] == 5
        assert (await admin.put(url, json=values, headers=BEARER)).status_code == 204
        click = {"user_id": 999, "item_id": item}
        assert (await admin.post("/v1/events", json=click, headers=BEARER)).json()["applied"] == 1
        asked = {"user_id": 999, "candidates": [item]}
        assert (await client.post("/v1/score", json=asked)).json()["cold_user"] is False
        assert (await admin.delete(url, headers=BEARER)).status_code == 204
        assert (await client.get(url)).status_code == 404


async def test_writes_at_the_admin_port_are_recorded_with_who_what_and_how_it_went(
    world: World,
) -> None:
    item = int(world.ids[2])
    changed = {"writes_on": "admin", "events_on": "admin", "admin_token": f"ann:{TOKEN}"}
    async with (
        opened(world, **changed) as state,
        admin_of(state) as admin,
        client_of(state) as client,
    ):
        url = f"/v1/items/{item}"
        values = (await client.get(url)).json()
        batch = {"events": [{"user_id": 4321, "item_id": item}, {"user_id": 4321}]}
        with capture_logs() as logs:
            await admin.put(url, json=values, headers=BEARER)
            await admin.patch(url, json={"likes_level": 5})
            await admin.patch(url, json={"no": 5}, headers=BEARER)
            await admin.patch(url, content="{}", headers=BEARER)
            await admin.post("/v1/events", json=batch, headers=BEARER)
            await admin.delete(url, headers=BEARER)
            await admin.delete(url, headers=BEARER)
            await client.get(url)
    audited = [line for line in logs if line["event"] == "admin"]
    assert [(line["who"], line["action"], line["outcome"]) for line in audited] == [
        ("ann", "put-item", "done"),
        ("anonymous", "patch-item", "unauthorised"),
        ("ann", "patch-item", "invalid-field"),
        ("ann", "patch-item", "unsupported-media-type"),
        ("ann", "events", "done"),
        ("ann", "delete-item", "done"),
        ("ann", "delete-item", "unknown-item"),
    ]
    assert audited[0]["item_id"] == audited[-1]["item_id"] == item
    assert (audited[4]["applied"], audited[4]["rejected"]) == (1, 1)
    assert all({"address", "ms"} <= line.keys() for line in audited)
    assert "4321" not in str(audited)  # of users only the log that is told to has ids
    assert TOKEN not in str(audited)


async def test_without_a_token_the_admin_port_takes_writes_from_this_machine_alone(
    world: World,
) -> None:
    async with opened(world, events_on="admin") as state, admin_of(state) as admin:
        foreign = {"Host": "evil.example"}
        assert (await admin.post("/v1/events", json=CLICK, headers=foreign)).status_code == 403
        assert (await admin.post("/v1/events", json=CLICK)).status_code == 200


async def test_each_document_has_what_its_port_answers(world: World) -> None:
    for place in ("service", "admin", "off"):
        async with (
            opened(world, writes_on=place, events_on=place) as state,
            client_of(state) as client,
            admin_of(state) as admin,
        ):
            public = (await client.get("/openapi.json")).json()["paths"]
            admins = (await admin.get("/openapi.json")).json()["paths"]
        for path, methods in (("/v1/events", ["post"]), ("/v1/items/{item_id}", ["put", "patch"])):
            for method in methods:
                said = set(public[path][method]["responses"])
                assert (said == {"403"}) is (place != "service")
                assert (method in admins.get(path, {})) is (place == "admin")
        assert "get" in public["/v1/items/{item_id}"]


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        (None, False),
        ("", False),
        ("text/plain", False),
        ("text/plain; application/json", False),
        ("application/jsonp", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=application/json", False),
    ],
)
async def test_a_write_is_json_by_its_header_and_a_score_by_its_body(
    world: World, content_type: str | None, taken: bool
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    item = int(world.ids[0])
    async with opened(world) as state, client_of(state) as client:
        url = f"/v1/items/{item}"
        values = (await client.get(url)).content
        answers = [
            await client.put(url, content=values, headers=headers),
            await client.patch(url, content=values, headers=headers),
            await client.post("/v1/events", content=b'{"user_id":1,"item_id":1}', headers=headers),
        ]
        score = b'{"user_id":1,"candidates":[%d]}' % item
        assert (await client.post("/v1/score", content=score, headers=headers)).status_code == 200
    if taken:
        assert [answer.status_code for answer in answers] == [204, 204, 200]
    else:
        assert [answer.status_code for answer in answers] == [415, 415, 415]
        assert {a.json()["type"] for a in answers} == {"urn:qin:problem:unsupported-media-type"}
