"""API keys: who is let in, when it is asked, and what is written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from service.access.bearer import BearerTokens
from service.client.client import AsyncClient, Client, Refused
from service.settings import Settings
from tests.service.fuzz import fuzz
from tests.service.in_process import client_of, metric, opened
from tests.service.live import listening
from tests.service.process import Service, serving, start
from tests.service.world import World, make_world

OLD, NEW, JOB = "shop-key-of-last-year", "shop-key-of-this-year", "job-has-another-key"
ADMIN = "admin-token-of-its-own"
KEYS = f"shop:{OLD} job:{JOB} shop:{NEW}"
PROBES = ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of this file's own: it is written to."""
    return make_world(tmp_path_factory.mktemp("keys"), items=40, users=3)


@pytest.fixture(scope="module")
def locked(world: World) -> Iterator[Service]:
    variables = {"QIN_API_KEYS": KEYS, "QIN_ADMIN_TOKEN": f"ann:{ADMIN}", "QIN_LOG_SAMPLE": "1"}
    with serving(world.models, world.store, **variables) as service:
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_two_tokens_of_one_name_both_work_and_one_of_no_name_does_not() -> None:
    tokens = BearerTokens([("ann", "first"), ("ben", "other"), ("ann", "second")])
    assert tokens.names == ["ann", "ben"]
    for given, name in (
        (b"Bearer first", "ann"),
        (b"bearer second", "ann"),
        (b"Bearer  other ", "ben"),
        (b"Bearer third", None),
        (b"Bearer first, Bearer first", None),
        (b"Basic first", None),
        (b"first", None),
        (b"Bearer ", None),
        (b"", None),
        (b"Bearer \xff", None),
    ):
        assert tokens.name_of(given) == name


def test_both_admin_tokens_of_one_name_work(world: World) -> None:
    """So that a token can be replaced where it is used before it is taken out of the setting."""
    first, second = "the-token-of-last-year", "the-token-of-this-year"
    variables = {"QIN_ADMIN_TOKEN": f"ann:{first} ann:{second}", "QIN_MODEL_POLICY": "manual"}
    with serving(world.models, world.store, **variables) as service:
        for token in (first, second):
            with service.admin(token) as admin:
                assert admin.post("/admin/models/none/activate").status_code == 404
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line["who"] for line in lines if line["event"] == "admin"] == ["ann", "ann"]


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("not-a-key-of-this-service"), bearer(ADMIN), {"Authorization": f"Basic {NEW}"}],
)
def test_all_but_the_probes_and_the_page_ask_for_a_key(
    locked: Service, headers: dict[str, str]
) -> None:
    with locked.client() as client:
        for method, path in (
            ("POST", "/v1/score"),
            ("POST", "/v1/events"),
            ("POST", "/v2/models/qin/infer"),
            ("GET", "/v2"),
            ("GET", "/v2/models/stats"),
            ("GET", "/v2/models/qin/ready"),
            ("GET", "/v1/items/1"),
            ("DELETE", "/v1/items/1"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/nowhere"),
            ("OPTIONS", "/v1/score"),
        ):
            refused = client.request(method, path, headers=headers)
            assert refused.status_code == 401, path
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        for path in (*PROBES, "/docs"):
            assert client.get(path, headers=headers).status_code == 200


def test_every_key_lets_in_and_its_name_is_counted_and_logged(
    locked: Service, world: World
) -> None:
    body = {"user_id": 1, "candidates": world.ids[:3].tolist()}
    with locked.client() as client:
        for key in (OLD, NEW, JOB):
            answer = client.post("/v1/score", json=body, headers=bearer(key))
            assert answer.status_code == 200
        metrics = client.get("/metrics", headers=bearer(JOB)).text
        click = {"user_id": 1, "item_id": 1}
        assert client.post("/v1/events", json=click, headers=bearer(NEW)).status_code == 200
    counted = [line for line in metrics.splitlines() if line.startswith("qin_api_key_requests_t")]
    assert {line.split("{")[1].split("}")[0] for line in counted} == {'key="shop"', 'key="job"'}
    said = locked.log.read_text()
    scored = [line for line in map(json.loads, said.splitlines()) if line["event"] == "score"]
    assert [line["caller"] for line in scored if line["status"] == 200][-3:] == [
        "shop",
        "shop",
        "job",
    ]
    assert not any(secret in said + metrics for secret in (OLD, NEW, JOB, ADMIN))


def test_a_key_is_no_admin_token(locked: Service) -> None:
    with locked.admin(NEW) as admin:
        assert admin.get("/admin/models").status_code == 401


async def test_it_is_asked_before_the_body_is_read_or_asked_for(world: World) -> None:
    async with opened(world, api_keys=KEYS) as state, listening(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
            b"Content-Length: 100\r\n\r\n"
        )
        async with asyncio.timeout(30):
            said = await reader.read()  # to the end: nothing tells whether the body still comes
        assert said.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nconnection: close\r\n" in said.lower()
        assert b"100 Continue" not in said
        writer.close()


async def test_a_page_that_may_call_can_read_that_it_needs_a_key(world: World) -> None:
    origin = "https://shop.example"
    async with opened(world, api_keys=KEYS, cors_origins=origin) as state:
        async with client_of(state) as client:
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            assert (await client.options("/v1/score", headers=asks)).status_code == 204
            refused = await client.post("/v1/score", json={}, headers={"Origin": origin})
            assert refused.status_code == 401
            assert refused.headers["Access-Control-Allow-Origin"] == origin
        assert metric(state, "qin_problems_total", problem="unauthorised") == 1


@pytest.mark.parametrize("keys", [None, "", "  "])
async def test_without_keys_none_is_asked_for(world: World, keys: str | None) -> None:
    async with opened(world, api_keys=keys) as state, client_of(state) as client:
        assert (await client.get("/v2")).status_code == 200
        document = (await client.get("/openapi.json")).json()
        assert "401" not in document["paths"]["/v2"]["get"]["responses"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"api_keys": "only-a-key-and-no-name"}, "each is NAME:KEY"),
        ({"api_keys": "a b:0123456789abcdef"}, "each is NAME:KEY"),
        ({"api_keys": "n\u00e4me:0123456789abcdef"}, "each is NAME:KEY"),
        ({"api_keys": f"{'n' * 65}:0123456789abcdef"}, "each is NAME:KEY"),
        ({"api_keys": "shop:short"}, "16 or more of"),
        ({"api_keys": 'shop:0123456789"abcdef'}, "16 or more of"),
        ({"api_keys": f"shop:{NEW} job:{NEW}"}, "shop and job have the same key"),
        ({"api_keys": f"shop:{ADMIN}", "admin_token": ADMIN}, "must not be in QIN_ADMIN_TOKEN"),
    ],
)
def test_keys_that_make_no_sense_are_refused_without_being_repeated(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=r"QIN_API_KEYS") as refused:
        Settings(**changed)
    message = refused.value.errors()[0]["msg"]
    assert said in message
    assert not any(secret in message for secret in (NEW, ADMIN, "short", "0123456789"))


def test_a_start_with_such_keys_names_the_setting_and_no_key() -> None:
    ended = start("--bundle", "none", QIN_API_KEYS="shop:too-short")
    assert ended.process.wait(30) == 2
    said = ended.log.read_text()
    assert "QIN_API_KEYS: 16 or more" in said
    assert "too-short" not in said
    ended.remove()


async def test_both_clients_send_their_key(
    locked: Service, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = world.ids[:3].tolist()
    with Client(locked.url, api_key=NEW) as client:
        assert client.ready()
        assert client.score(1, items).known.all()
        assert client.click(1, items)
    monkeypatch.setenv("QIN_API_KEY", JOB)
    async with AsyncClient(locked.url) as asyncio_client:
        assert (await asyncio_client.score(1, items)).known.all()
    with Client(locked.url, api_key="") as client, pytest.raises(Refused) as refused:
        client.score(1, items)
    assert refused.value.status == 401
    with pytest.raises(ValueError, match="api_key"):
        Client(locked.url, api_key="a b")


async def test_clicks_go_to_the_admin_port_where_they_are_taken(world: World) -> None:
    variables = {"QIN_EVENTS_ON": "admin", "QIN_ADMIN_TOKEN": ADMIN}
    with serving(world.models, world.store, **variables) as service:
        admin = f"http://127.0.0.1:{service.admin_port}"
        with Client(service.url) as client, pytest.raises(Refused) as refused:
            client.click(1, [1])
        assert refused.value.status == 403
        assert "QIN_EVENTS_ON=admin" in refused.value.detail
        with Client(service.url, events_url=admin, events_key=ADMIN) as client:
            assert client.click(1, [1])
            assert client.score(1, world.ids[:2]).known.all()
        async with AsyncClient(service.url, events_url=admin, events_key=ADMIN) as other:
            assert await other.click(1, [1])


def test_the_document_holds_where_keys_are_asked_for_and_writes_are_off(world: World) -> None:
    variables = {"QIN_API_KEYS": KEYS, "QIN_WRITES_ON": "off", "QIN_EVENTS_ON": "admin"}
    with serving(world.models, world.store, **variables) as service:
        document = httpx.get(f"{service.url}/openapi.json", headers=bearer(NEW), trust_env=False)
        operations = document.json()["paths"]
        assert operations["/v1/score"]["post"]["security"] == [{"API key": []}]
        assert "security" not in operations["/livez"]["get"]
        outcome = fuzz(service.url, examples=2, seed=1, leave_out="^/v2/", key=NEW)
    assert outcome.breaches == outcome.server_errors == 0, outcome.said
    assert {"200", "401", "403"} <= outcome.statuses.keys()
