"""``docker-compose.yml``, as far as it can be tried without Docker."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from feature_store.redis.url import parse
from service.settings import Settings
from tests.feature_store.redis_servers import standalone
from tests.service.process import serving
from tests.service.world import make_world, on_another_store

ROOT = Path(__file__).parents[1]
COMPOSED: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
REDIS, SERVICE = COMPOSED["services"]["redis"], COMPOSED["services"]["service"]
VARIABLES: dict[str, str] = SERVICE["environment"]
ACCESS = ("QIN_WRITES_ON", "QIN_EVENTS_ON", "QIN_ALLOWED_HOSTS")


def test_the_service_waits_for_the_redis_that_it_reads_from() -> None:
    url = parse(VARIABLES["QIN_STORE"])
    assert url.addresses == (("redis", 6379),)
    assert SERVICE["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert REDIS["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_places_in_the_container_are_mounted_where_the_service_looks() -> None:
    mounts = [volume.split(":") for volume in SERVICE["volumes"]]
    assert ["./var/models", VARIABLES["QIN_BUNDLE"], "ro"] in mounts
    assert SERVICE["read_only"]
    private = PurePosixPath(VARIABLES["QIN_PRIVATE"])
    assert any(private.is_relative_to(writable) for writable in SERVICE["tmpfs"])
    [data] = REDIS["volumes"]
    assert data.split(":")[0] in COMPOSED["volumes"]


def test_what_is_published_is_for_this_machine_and_the_port_that_is_served() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    [exposed] = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.M)
    assert int(exposed) == Settings.model_fields["port"].default
    assert SERVICE["ports"] == [f"127.0.0.1:{exposed}:{exposed}"]
    assert REDIS["ports"] == ["127.0.0.1:6379:6379"]
    entry = re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.M)
    assert entry is not None
    assert shlex.split(entry[1].strip("[]").replace(",", " "))[:4] == [
        *("python", "-m", "service", "serve")
    ]


@pytest.fixture
def settings_of_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("settings_of_shell")
def test_both_come_up_with_what_it_tells_them(tmp_path: Path) -> None:
    """The same options and variables, with this machine's places and ports."""
    program, *options = REDIS["command"]
    assert program == "redis-server"
    with standalone(tmp_path / "redis", options=options) as server:
        assert server.client(decode_responses=True).config_get("maxmemory-policy") == {
            "maxmemory-policy": "noeviction"
        }
        made = make_world(tmp_path, items=20, users=3)
        world = on_another_store(made, f"redis://127.0.0.1:{server.port}/0")
        here = {
            "QIN_BUNDLE": str(world.models),
            "QIN_STORE": world.store,
            "QIN_PRIVATE": str(tmp_path / "private"),
            "QIN_WORKERS": "2",
            "QIN_TABLE_FOLDER": str(tmp_path / "tables"),
            "QIN_ENCODER": "",
            **{name: VARIABLES[name] for name in ACCESS},
        }
        assert here.keys() == VARIABLES.keys()
        with serving(world.models, world.store, **here) as service, service.client() as client:
            body = {"user_id": 1, "candidates": world.ids[:3].tolist()}
            answer = client.post("/v1/score", json=body).json()
            assert (answer["degraded"], answer["unknown_items"]) == ([], [])
            assert server.client().info("commandstats")["cmdstat_lrange"]["calls"] > 0
            click = {"user_id": 1, "item_id": int(world.ids[0])}
            assert client.post("/v1/events", json=click).json()["applied"] == 1
            scraped = client.get("/metrics", headers={"Host": "service:8000"})
            assert scraped.status_code == 200
            rebound = client.get("/metrics", headers={"Host": "evil.example:8000"})
            assert rebound.status_code == 403
