"""Our own client, blocking and asyncio: right answers, kept deadlines, no unsafe repetition."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from service.client.client import (
    AsyncClient,
    Client,
    ClientError,
    Late,
    Refused,
    Scores,
    Unreachable,
)
from tests.ports import free_port
from tests.service.api.oip.triton import Asked, same_bits
from tests.service.process import Service
from tests.service.scripted import BREAK, SILENT, Deed, reply, scripted
from tests.service.world import World

UNKNOWN = 5_000_000
PATIENT_MS = 9_000  # within the longest deadline that the service takes
Kind = type[Client] | type[AsyncClient]
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


async def result_of(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


@pytest.fixture
async def ask(kind: Kind, service: Service) -> AsyncIterator[Ask]:
    """``await ask("score", …)`` of either client, at the room's service."""
    client = kind(service.url, deadline_ms=PATIENT_MS)

    async def ask(method: str, *arguments: Any, **options: Any) -> Any:
        return await result_of(getattr(client, method)(*arguments, **options))

    yield ask
    await result_of(client.close())


async def test_scores_are_those_of_v1_to_the_bit(
    ask: Ask, client: httpx.Client, world: World
) -> None:
    asked = Asked(
        3,
        np.append(world.ids[:30], UNKNOWN),
        history=world.ids[40:45],
        context={"views_level": np.arange(31) % 7},
    )
    answer: Scores = await ask(
        "score", asked.user, asked.candidates, history=asked.history, context=asked.context
    )
    same_bits(answer.scores, asked.scores(client))
    assert answer.known.tolist() == [True] * 30 + [False]
    assert answer.model_version == "small-1"
    assert answer.notes["unknown_items"] == 1


async def test_plain_lists_options_and_identifiers(ask: Ask, world: World) -> None:
    items = world.ids[:4].tolist()
    answer = await ask(
        "score",
        2**63 - 1,
        items,
        model_version="active",
        priority="batch",
        request_id="mine-1",
        deadline_ms=PATIENT_MS,
    )
    assert answer.request_id == "mine-1"
    assert answer.scores.shape == answer.known.shape == (4,)
    assert await ask("ready") is True


async def test_clicks_are_seen_and_taken_once_under_a_key(ask: Ask, world: World) -> None:
    user = int(np.random.default_rng().integers(2**40, 2**62))
    items = world.ids[:3]
    assert (await ask("score", user, items)).notes["cold_user"] is True
    assert await ask("click", user, items, key="k-1") is True
    assert await ask("click", user, items, key="k-1") is False
    assert "cold_user" not in (await ask("score", user, items)).notes


@pytest.mark.parametrize(
    ("arguments", "options", "status"),
    [
        ((3, [1]), {"model_version": "small-9"}, 404),
        ((3, [1]), {"model_version": "a/../b"}, 404),
        ((3, []), {}, 400),
        ((3, [-1]), {}, 400),
        ((3, [1]), {"context": {"mood": [1]}}, 400),
        ((3, [1]), {"priority": "urgent"}, 400),
    ],
)
async def test_a_refusal_says_why(
    ask: Ask, arguments: tuple[Any, ...], options: dict[str, Any], status: int
) -> None:
    with pytest.raises(Refused) as refusal:
        await ask("score", *arguments, **options)
    assert refusal.value.status == status
    assert len(refusal.value.detail) > 5


@pytest.mark.parametrize("items", [[1.5], ["1"], [[1]], 7, [True]])
async def test_what_is_no_list_of_integers_is_not_even_sent(ask: Ask, items: Any) -> None:
    with pytest.raises(TypeError, match="item_ids: must be a list of integers"):
        await ask("score", 3, items)


@pytest.mark.parametrize(
    ("method", "user", "ids", "message"),
    [
        ("score", 5, ["AB/12"], r"item_ids: must be a list of integers, as user_id is one; .*text"),
        ("click", 5, ["AB/12"], r"item_ids: must be a list of integers, as user_id is one; .*text"),
        ("score", "u-5", [12], r"item_ids: must be a list of strings, as user_id is one; .*number"),
        ("click", "u-5", [12], r"item_ids: must be a list of strings, as user_id is one; .*number"),
        ("score", 1.5, [12], "user_id: must be an integer or a string$"),
        ("click", 1.5, [12], "user_id: must be an integer or a string$"),
    ],
)
async def test_ids_of_two_kinds_are_named_both(
    ask: Ask, method: str, user: Any, ids: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        await ask(method, user, ids)


async def test_a_deadline_that_passed_there_is_late_here(ask: Ask, world: World) -> None:
    with pytest.raises(Late):
        await ask("score", 3, np.resize(world.ids, 5000), deadline_ms=0.02)


def test_threads_share_a_client_and_each_gets_its_own(service: Service, world: World) -> None:
    users = list(world.users)[:8] * 10
    with Client(service.url, deadline_ms=PATIENT_MS) as client:
        alone = {user: client.score(user, world.ids[:20]).scores.tobytes() for user in users}
        with ThreadPoolExecutor(8) as together:
            answers = list(together.map(lambda user: client.score(user, world.ids[:20]), users))
    for user, answer in zip(users, answers, strict=True):
        assert answer.scores.tobytes() == alone[user]


READY = reply(200, b'{"applied": 1}')
BUSY = reply(429, b'{"error": "full"}', Retry_After="0")
AWAY = reply(503, b'{"detail": "no store"}', Retry_After="0")


async def tried(
    kind: Kind, deeds: list[Deed], method: str, **options: Any
) -> tuple[Any, list[bytes]]:
    """What came of it (a value, or the error), and the requests that were sent."""
    arguments = (7, [1]) if method == "click" else ()
    with scripted(deeds) as server:
        client = kind(server.url, deadline_ms=PATIENT_MS)
        try:
            outcome = await result_of(getattr(client, method)(*arguments, **options))
        except ClientError as error:
            outcome = error
        await result_of(client.close())
    return outcome, server.requests


HALF = reply(200, b"x" * 99)[:-50]


@pytest.mark.parametrize("first", [BREAK, BUSY, AWAY])
async def test_what_may_be_repeated_is_sent_again(kind: Kind, first: Deed) -> None:
    outcome, requests = await tried(kind, [first, first, READY], "click", key="k")
    assert outcome is True
    assert len(requests) == 3


@pytest.mark.parametrize("first", [BREAK, AWAY])
async def test_a_click_without_a_key_is_never_sent_twice(kind: Kind, first: Deed) -> None:
    outcome, requests = await tried(kind, [first, READY], "click")
    assert isinstance(outcome, Unreachable if first == BREAK else Refused)
    assert len(requests) == 1


async def test_half_an_answer_is_none(kind: Kind) -> None:
    outcome, requests = await tried(kind, [HALF], "click")
    assert isinstance(outcome, Unreachable)
    assert len(requests) == 1


async def test_one_connection_does_for_many_calls(kind: Kind) -> None:
    with scripted([READY] * 6) as server:
        client = kind(server.url, deadline_ms=PATIENT_MS)
        for _ in range(5):
            assert await result_of(client.click(7, [1])) is True
        await result_of(client.close())
    assert server.connections == 1


async def test_retries_end(kind: Kind) -> None:
    outcome, requests = await tried(kind, [AWAY] * 4, "click", key="k")
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.detail, outcome.retry_after) == (503, "no store", 0.0)
    assert len(requests) == 3
    assert all(b"\r\nx-deadline-ms: " in request.lower() for request in requests)


async def test_a_wait_beyond_the_deadline_is_not_begun(kind: Kind) -> None:
    away = reply(503, b"{}", Retry_After="3600")
    outcome, requests = await tried(kind, [away, READY], "click", key="k")
    assert isinstance(outcome, Refused)
    assert outcome.retry_after == 3600
    assert len(requests) == 1


@pytest.mark.parametrize("status", [400, 404, 500, 504])
async def test_other_refusals_are_final(kind: Kind, status: int) -> None:
    outcome, requests = await tried(kind, [reply(status), READY], "click", key="k")
    assert isinstance(outcome, Late if status == 504 else Refused)
    assert len(requests) == 1


@pytest.mark.parametrize("deed", [SILENT, HALF])
async def test_who_says_nothing_or_half_is_given_up_at_the_deadline(kind: Kind, deed: Deed) -> None:
    deeds = [deed, SILENT, SILENT]
    outcome, _ = await tried(kind, deeds, "click", key="k", deadline_ms=200)
    assert isinstance(outcome, Late | Unreachable)


async def test_nobody_there_is_said_so(kind: Kind) -> None:
    client = kind(f"http://127.0.0.1:{free_port()}", deadline_ms=PATIENT_MS)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        await result_of(client.score(7, [1]))
    assert await result_of(client.ready()) is False
    await result_of(client.close())


def test_a_connection_that_the_service_closed_meanwhile_is_not_used() -> None:
    with scripted([READY]) as first:
        client = Client(first.url, deadline_ms=PATIENT_MS)
        client.click(7, [1])
        idle = client._transport._idle[0]
        assert idle.sock is not None
        idle.sock.recv(1)  # until the server has closed it, which is no answer
        first.deeds.append(READY)
        assert client.click(7, [1]) is True
        assert first.connections == 2
        client.close()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"outputs": []}', b'{"outputs": [{"datatype": "FP64"}]}']
)
async def test_an_answer_that_is_none_is_an_error_of_the_clients_own(
    kind: Kind, body: bytes
) -> None:
    answer = reply(200, body, Inference_Header_Content_Length=str(len(body)))
    with scripted([answer]) as server:
        client = kind(server.url, deadline_ms=PATIENT_MS)
        with pytest.raises(ClientError, match="invalid answer"):
            await result_of(client.score(7, [1]))
        await result_of(client.close())


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x?y"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url: "):
        Client(url)


async def test_no_proxy_of_the_environment_is_used(
    kind: Kind, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = kind(service.url, deadline_ms=PATIENT_MS)
    assert await result_of(client.ready())
    await result_of(client.close())
