"""Our own client where the service's ids are texts: blocking and asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.client import Refused
from tests.service.api.oip.triton import same_bits
from tests.service.client.test_client import PATIENT_MS, Ask, Kind, kind, result_of
from tests.service.mapped_world import MappedWorld, make_mapped, text_of
from tests.service.process import Service, serving
from tests.service.world import World, make_world

__all__ = ["kind"]  # a fixture


@pytest.fixture
async def ask(kind: Kind, mapped_service: Service) -> AsyncIterator[Ask]:
    client = kind(mapped_service.url, deadline_ms=PATIENT_MS)

    async def ask(method: str, *arguments: Any, **options: Any) -> Any:
        return await result_of(getattr(client, method)(*arguments, **options))

    yield ask
    await result_of(client.close())


@pytest.mark.parametrize("make", [list, tuple, np.array, lambda v: np.array(v, np.object_)])
async def test_scores_are_those_of_v1_to_the_bit(
    ask: Ask, mapped_service: Service, mapped: MappedWorld, make: Any
) -> None:
    items, past = [*mapped.items[:30], "never seen"], mapped.items[40:45]
    levels = (np.arange(31) % 7).tolist()
    body = {
        "user_id": text_of(3),
        "candidates": items,
        "history": past,
        "context": {"views_level": levels},
    }
    async with httpx.AsyncClient(trust_env=False) as client:
        answered = await client.post(f"{mapped_service.url}/v1/score", json=body)
    expected = answered.json()["scores"]
    answer = await ask(
        "score",
        text_of(3),
        make(items),
        history=make(past),
        context={"views_level": levels},
    )
    same_bits(answer.scores, np.array([s or 0.0 for s in expected], np.float32))
    assert answer.known.tolist() == [True] * 30 + [False]
    assert answer.notes["unknown_items"] == 1


async def test_the_stored_history_is_the_users(ask: Ask, mapped: MappedWorld) -> None:
    items = mapped.items[:5]
    assert "cold_user" not in (await ask("score", text_of(3), items)).notes
    assert (await ask("score", "no such user", items)).notes["cold_user"] is True
    assert (await ask("score", text_of(3), items, history=[])).notes["cold_user"] is True


@pytest.fixture(scope="module")
def writable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, list[str]]]:
    """A service of its own, and its items."""
    folder = tmp_path_factory.mktemp("writable")
    mapped = make_mapped(make_world(folder, items=40, users=3), folder)
    with serving(mapped.models, mapped.store) as service:
        yield service, mapped.items


async def test_clicks_are_seen_and_taken_once_under_a_key(
    kind: Kind, writable: tuple[Service, list[str]]
) -> None:
    (service, items), user = writable, f"ü/{kind.__name__}"
    client = kind(service.url, deadline_ms=PATIENT_MS)
    assert (await result_of(client.score(user, items))).notes["cold_user"] is True
    assert await result_of(client.click(user, np.array(items[:3]), key="k-1")) is True
    assert await result_of(client.click(user, items[:3], key="k-1")) is False
    assert "cold_user" not in (await result_of(client.score(user, items))).notes
    await result_of(client.close())


@pytest.mark.parametrize("items", [[1], ["a", 1], [b"a"], "ab", [["a"]], [None]])
async def test_what_is_no_list_of_strings_is_not_even_sent(ask: Ask, items: Any) -> None:
    for method in ("score", "click"):
        with pytest.raises(TypeError, match="item_ids: must be a list of strings"):
            await ask(method, "u", items)


async def test_a_lone_surrogate_is_not_even_sent(ask: Ask) -> None:
    for method in ("score", "click"):
        with pytest.raises((ValueError, TypeError)):
            await ask(method, "u", ["\ud800"])


async def test_the_other_kind_of_ids_is_refused_and_said(
    ask: Ask, kind: Kind, service: Service, world: World
) -> None:
    with pytest.raises(Refused, match="the ids of this store are texts"):
        await ask("score", 3, world.ids[:4])
    client = kind(service.url, deadline_ms=PATIENT_MS)
    with pytest.raises(Refused, match=r"user_id\.datatype: INT64"):
        await result_of(client.score("3", ["4"]))
    await result_of(client.close())
