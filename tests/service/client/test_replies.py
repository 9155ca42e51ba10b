"""What the client makes of replies that are no answers, and of options out of bounds."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

from service.client import Client, ClientError, Refused, Unreachable
from tests.service.client.test_client import PATIENT_MS, Kind, kind, result_of
from tests.service.scripted import BREAK, Deed, reply, scripted

__all__ = ["kind"]  # a fixture

CALLS: dict[str, tuple[Any, ...]] = {
    "score": (7, [1]),
    "score_inline": (7, [1]),
    "click": (7, [1]),
    "put_user": (7, {"country": 1}),
    "patch_user": (7, {"country": 1}),
    "delete_user": (7,),
}
WRITTEN = reply(204, b"")


async def called(
    kind: Kind, deeds: list[Deed], *methods: str, **options: Any
) -> tuple[Any, list[bytes]]:
    """The last call's value or error, and the request lines that were sent."""
    outcome: Any = None
    with scripted(deeds) as server:
        client = kind(server.url, **{"deadline_ms": PATIENT_MS, **options})
        for method in methods:
            try:
                outcome = await result_of(getattr(client, method)(*CALLS.get(method, ())))
            except ClientError as error:
                outcome = error
        await result_of(client.close())
    return outcome, [head.partition(b"\r\n")[0] for head in server.requests]


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("status", [301, 302, 304, 308])
async def test_a_redirection_is_refused_with_its_target(
    kind: Kind, method: str, status: int
) -> None:
    elsewhere = reply(status, b"", Location="https://elsewhere/")
    outcome, sent = await called(kind, [elsewhere, WRITTEN], method)
    assert isinstance(outcome, Refused)
    assert outcome.status == status
    assert "redirected to 'https://elsewhere/'" in outcome.detail
    assert len(sent) == 1


async def test_a_redirection_is_not_ready(kind: Kind) -> None:
    outcome, _ = await called(kind, [reply(302, b"", Location="/sign-in")], "ready")
    assert outcome is False


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("body", [b"<html>Please sign in</html>", b"[]", b"{}", b""])
async def test_a_page_of_a_proxy_is_no_answer(kind: Kind, method: str, body: bytes) -> None:
    outcome, _ = await called(kind, [reply(200, body)], method)
    assert isinstance(outcome, ClientError)
    assert "invalid answer" in str(outcome)


async def test_a_removal_whose_connection_ends_is_sent_once(kind: Kind) -> None:
    deeds = [WRITTEN, BREAK, reply(404)]
    outcome, sent = await called(kind, deeds, "put_user", "delete_user")
    assert isinstance(outcome, Unreachable)
    assert [line.split()[0] for line in sent] == [b"PUT", b"DELETE"]


async def test_a_put_is_sent_as_often_as_the_retries_say(kind: Kind) -> None:
    outcome, sent = await called(kind, [BREAK] * 9, "put_user", retries=1)
    assert isinstance(outcome, Unreachable)
    assert len(sent) == 2


@pytest.mark.parametrize("model", ["my model", "mödel", "a/b"])
async def test_a_model_of_any_name_is_asked_for(kind: Kind, model: str) -> None:
    _, sent = await called(kind, [reply(404)], "score", model=model)
    escaped = {"my model": b"my%20model", "mödel": b"m%C3%B6del", "a/b": b"a%2Fb"}[model]
    assert sent == [b"POST /v2/models/" + escaped + b"/infer HTTP/1.1"]


@pytest.mark.parametrize("deadline_ms", [0, -1, inf, 1e13, float("nan")])
async def test_a_deadline_out_of_bounds_is_not_even_sent(kind: Kind, deadline_ms: float) -> None:
    with scripted([]) as server:
        client = kind(server.url)
        with pytest.raises(ValueError, match="deadline_ms: must be above 0 and at most"):
            await result_of(client.score(7, [1], deadline_ms=deadline_ms))
        await result_of(client.close())
    assert not server.connections


@pytest.mark.parametrize("retries", [-1, 1.5])
def test_retries_out_of_bounds_are_refused(retries: Any) -> None:
    with pytest.raises(ValueError, match="retries: must be an integer of at least 0"):
        Client("http://127.0.0.1:1", retries=retries)


def test_ids_beyond_63_bits_are_not_sent_as_negative_ones() -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="item_ids: must be at most 2"):
            client.score(7, np.array([2**63 + 5], np.uint64))
        with pytest.raises(ValueError, match="user_id: must be at most 2"):
            client.score(2**63, [1])
