"""Who may use the admin API, and what is written down about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.ports import free_port
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import Service, serving, start
from tests.service.wire import connected, only_response

ANN, BEN = "ann-has-this-long-token", "ben-has-another-token"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    world, _ = two_versions(tmp_path_factory.mktemp("guarded"))
    tokens = f"ann:{ANN} ben:{BEN}"
    with serving(
        world.models, world.store, QIN_ADMIN_TOKEN=tokens, QIN_MODEL_POLICY="manual"
    ) as service:
        yield service


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-but-long-enough"},
        {"Authorization": ANN},
        {"Authorization": f"Basic {ANN}"},
        {"Authorization": f"Bearer {ANN}x"},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_a_token_nothing_is_told_or_done(
    guarded: Service, headers: dict[str, str | bytes]
) -> None:
    with guarded.admin() as admin:
        for method, path in (
            ("GET", "/admin/models"),
            ("GET", "/admin/models/small-1"),
            ("POST", "/admin/models/small-1/activate"),
            ("POST", "/admin/models/rollback"),
        ):
            refused = admin.request(method, path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert "small" not in refused.text.replace(path, "")


def test_every_call_is_written_down_with_who_what_and_how_it_went(guarded: Service) -> None:
    with guarded.admin(ANN) as ann, guarded.admin(BEN) as ben, guarded.admin() as nobody:
        assert ann.post("/admin/models/small-1/load").status_code == 200
        assert ben.post("/admin/models/none/activate").status_code == 404
        assert nobody.post("/admin/models/rollback").status_code == 401
    lines = [json.loads(line) for line in guarded.log.read_text().splitlines()]
    audited = [line for line in lines if line["event"] == "admin"][-3:]
    assert [(line["who"], line["action"], line["outcome"]) for line in audited] == [
        ("ann", "load", "done"),
        ("ben", "activate", "unknown-version"),
        ("anonymous", "rollback", "unauthorised"),
    ]
    assert audited[0]["model_version"] == "small-1"
    assert all({"timestamp", "address", "ms"} <= line.keys() for line in audited)
    assert ANN not in guarded.log.read_text()


def test_the_command_sends_the_first_token_alone_of_the_services_own_setting(
    guarded: Service,
) -> None:
    command = [sys.executable, "-m", "service", "models", "list", "--json"]
    url = f"http://127.0.0.1:{guarded.admin_port}"
    for setting, status in ((f"ann:{ANN} ben:{BEN}", 0), (BEN, 0), (" ", 1)):
        variables = {**os.environ, "QIN_ADMIN_URL": url, "QIN_ADMIN_TOKEN": setting}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        assert (done.returncode, done.stderr[:8]) == (status, "refused:" * status)


def test_a_page_of_another_site_is_refused_even_with_a_token(guarded: Service) -> None:
    with guarded.admin(ANN) as ann:
        headers = {"Origin": "https://evil.example"}
        assert ann.post("/admin/models/rollback", headers=headers).status_code == 403


def test_without_tokens_only_this_machine_by_its_own_name(service: Service) -> None:
    with service.admin() as admin:
        assert admin.get("/admin/models").status_code == 200
        rebound = admin.get("/admin/models", headers={"Host": "evil.example:8001"})
        assert rebound.status_code == 403


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost:8001", "127.0.0.1", 200),
        ("HTTP://[::1]", "localhost", 200),
        ("http://evil.example:8001", "127.0.0.1", 403),
        ("http://127.0.0.1", "evil.example", 403),
        ("http://localhost.evil.example", "localhost", 403),
        ("http://evil.example\\@127.0.0.1", "127.0.0.1", 400),
    ],
)
def test_the_host_of_an_absolute_target_is_looked_at_as_the_header_is(
    service: Service, target: str, host: str, status: int
) -> None:
    with connected(service, admin=True) as connection:
        lines = f"GET {target}/admin/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(lines.encode())
        assert only_response(connection).status == status


def test_the_public_port_knows_nothing_of_it(service: Service, client: httpx.Client) -> None:
    assert client.get("/admin/models").status_code == 404
    with service.admin() as admin:
        assert admin.post("/v1/score", json={}).status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_other_machines_are_let_in_with_a_token_only(host: str) -> None:
    ended = start("--bundle", "none", QIN_ADMIN_HOST=host)
    assert ended.process.wait(30) == 2
    said = ended.log.read_text()
    assert f"QIN_ADMIN_TOKEN: required, because QIN_ADMIN_HOST {host}" in said
    ended.remove()


def test_a_short_token_is_refused() -> None:
    ended = start("--bundle", "none", QIN_ADMIN_TOKEN="secret")
    assert ended.process.wait(30) == 2
    assert "QIN_ADMIN_TOKEN: 16 or more" in ended.log.read_text()
    assert "secret" not in ended.log.read_text()
    ended.remove()


def test_a_port_that_is_taken_is_named_with_its_setting(world) -> None:  # type: ignore[no-untyped-def]
    import socket

    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        options = ("--bundle", str(world.models), "--store", world.store)
        ended = start(*options, QIN_ADMIN_PORT=str(port))
        assert ended.process.wait(30) == 1
        assert f"127.0.0.1:{port}: Address already in use" in ended.log.read_text()
        assert "QIN_ADMIN_PORT" in ended.log.read_text()
        ended.remove()
