"""``python -m service models``: the same for the terminal."""

from __future__ import annotations

import json
import socket
import subprocess
from threading import Thread

import pytest

from tests.service import forked
from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import Swapping


def run(swapping: Swapping, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables = {"COLUMNS": "160", "QIN_ADMIN_URL": str(swapping.admin.base_url), **variables}
    return forked.run("service", "models", *arguments, **variables)


def test_every_verb_has_its_command_and_the_list_is_a_table(swapping: Swapping) -> None:
    assert run(swapping, "load", "small-2").stdout == "small-2: ready\n"
    canary = run(swapping, "canary", "small-2", "--share", "0.25")
    assert canary.stdout == "small-2: ready, canary 25%\n"
    listed = run(swapping, "list").stdout
    rows = {line.split()[0]: line for line in listed.splitlines()}
    assert rows["version"].split()[:3] == ["version", "state", "role"]
    assert "active" in rows["small-1"]
    assert "canary 25%" in rows["small-2"]
    assert f"{swapping.service.process.pid} serves small-1" in listed
    assert run(swapping, "promote").stdout == "small-2: active\n"
    assert run(swapping, "rollback").stdout == "small-1: active\n"
    shadow = run(swapping, "shadow", "small-2", "--share", "1")
    assert shadow.stdout == "small-2: ready, shadow 100%\n"
    assert run(swapping, "unload", "small-2").stdout == "small-2: unloaded\n"
    assert run(swapping, "activate", "small-2").stdout == "small-2: active\n"
    assert json.loads(run(swapping, "list", "--json").stdout)["active"] == "small-2"


def test_a_reason_is_a_line_of_its_own_below_the_table(swapping: Swapping) -> None:
    hostile.rename_a_feature(hostile.copied(swapping.world.models / "small-2", "small-3"))
    refused = run(swapping, "load", "small-3")
    assert refused.returncode == 1
    listed = run(swapping, "list", COLUMNS="80").stdout.splitlines()
    (row,) = (line for line in listed if line.split()[0] == "small-3")
    assert row.split()[1] == "failed"
    (reason,) = (line for line in listed if line.startswith("small-3: "))
    assert refused.stderr == f"refused: version {reason}\n"
    assert listed.index(reason) > listed.index(row)
    assert reason.endswith("; then `python -m service models activate small-3`")
    assert "remark" not in listed[0]


def test_what_is_refused_is_one_line_and_exit_status_1(swapping: Swapping) -> None:
    for arguments, reason in (
        (("activate", "nowhere"), "refused: version 'nowhere': not in"),
        (("unload", "small-1"), "activate another one first"),
        (("list", "--admin", "http://127.0.0.1:1"), "is the service running?"),
        (("list", "--admin", "file:///etc/passwd"), "must be an HTTP URL such as http://"),
        (("list", "--admin", "http://[::1"), "must be an HTTP URL such as http://"),
        (("list", "--admin", "http://127.0.0.1:port"), "must be an HTTP URL such as http://"),
    ):
        done = run(swapping, *arguments)
        assert done.returncode == 1
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 200 OK\r\n\r\n<html>", b"HTTP/1.0 200 OK\r\n\r\n[1]", b"SSH-2.0\r\n"]
)
def test_an_answer_of_another_program_is_one_line(swapping: Swapping, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        other = Thread(target=reply)
        other.start()
        done = run(swapping, "list", "--admin", f"http://127.0.0.1:{listener.getsockname()[1]}")
        other.join()
    assert done.returncode == 1
    assert "is no admin API" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_proxy_is_not_used_for_this_machine(swapping: Swapping) -> None:
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = run(swapping, "list", "--json", **proxies)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["active"]


def test_a_proxy_is_used_for_other_machines(swapping: Swapping) -> None:
    done = run(
        swapping, "list", "--admin", "http://192.0.2.1:8001", http_proxy="http://127.0.0.1:9"
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr  # by the proxy


def test_a_password_in_the_url_is_refused_and_not_shown(swapping: Swapping) -> None:
    done = run(swapping, "list", "--admin", "http://admin:hush@127.0.0.1:8001")
    assert done.returncode == 1
    assert "QIN_ADMIN_TOKEN is the token" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hush" not in done.stderr
