"""Our own client and models with user and request features: blocking and asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.client import Refused
from tests.service.api.oip.triton import same_bits
from tests.service.client.test_client import PATIENT_MS, Ask, Kind, kind, result_of
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.process import Service, serving
from tests.service.user_world import UserWorld, make_mapped_users, make_user_world

__all__ = ["kind"]  # a fixture

KNOWN, NEW = 11, 987_654_321
RECORD = {"user_id": 3, "country": np.int64(2), "followed": [1, 2], "taste": np.ones(4)}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> UserWorld:
    return make_user_world(tmp_path_factory.mktemp("users_of_client"))


@pytest.fixture(scope="module")
def users_service(users: UserWorld) -> Iterator[Service]:
    with serving(users.world.models, users.world.store) as service:
        yield service


@pytest.fixture
async def ask(kind: Kind, users_service: Service) -> AsyncIterator[Ask]:
    client = kind(users_service.url, deadline_ms=PATIENT_MS)

    async def ask(method: str, *arguments: Any, **options: Any) -> Any:
        return await result_of(getattr(client, method)(*arguments, **options))

    yield ask
    await result_of(client.close())


def of_v1(service: Service, **body: Any) -> Any:
    with service.client() as client:
        answer = client.post("/v1/score", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.mark.parametrize(
    ("features", "as_json"),
    [
        ({"device": 2, "hour": 8.1}, {"device": 2, "hour": 8.1}),
        ({"device": np.int32(2), "hour": np.float64(8.1)}, {"device": 2, "hour": 8.1}),
        ({"device": 2, "hour": None}, {"device": 2}),
        ({"device": None, "hour": nan}, {}),
        ({}, {}),
    ],
)
async def test_scores_with_request_features_are_those_of_v1_to_the_bit(
    ask: Ask, users_service: Service, users: UserWorld, features: Any, as_json: dict[str, Any]
) -> None:
    items = users.world.ids[:30]
    body = {"user_id": KNOWN, "candidates": items.tolist(), "features": as_json}
    expected = of_v1(users_service, **body)
    answer = await ask("score", KNOWN, items, features=features)
    same_bits(answer.scores, np.array(expected["scores"], np.float32))
    assert answer.notes.get("defaulted", "") == ", ".join(expected["defaulted"])


@pytest.mark.parametrize(
    ("features", "error", "said"),
    [
        ({"device": True}, TypeError, "features: device: must be an int"),
        ({"device": "2"}, TypeError, "features: device: must be an int"),
        ({"device": [2]}, TypeError, "features: device: must be an int"),
        ({"device": 2**63}, ValueError, "features: device: beyond the range"),
        ({"hour": 1e39}, ValueError, "features: hour: beyond the range"),
        ({"item_id": 3}, ValueError, "features: item_id cannot be request features"),
        ({"likes_level": 3}, ValueError, "features: likes_level cannot be request features"),
    ],
)
async def test_what_is_no_feature_is_not_even_sent(
    ask: Ask, features: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await ask("score", KNOWN, [1], features=features, context={"likes_level": [3]})


async def test_an_infinite_feature_is_refused_not_missing_beside_inline_items(ask: Ask) -> None:
    for infinite in (inf, np.float32(-inf)):
        with pytest.raises(ValueError, match="features: hour: beyond the range"):
            await ask("score_inline", KNOWN, [1], features={"hour": infinite})


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"hour": 8}, "inputs.hour.datatype: must be FP32: hour is a number"),
        ({"device": 2.0}, "inputs.device.datatype: must be INT64: device is an index"),
        ({"mood": 2}, "no such request feature; there are: device, hour"),
    ],
)
async def test_the_service_names_a_wrong_feature(ask: Ask, features: Any, said: str) -> None:
    with pytest.raises(Refused, match=said) as refusal:
        await ask("score", KNOWN, [1], features=features)
    assert refusal.value.status == 400


async def test_records_are_put_patched_and_deleted(
    ask: Ask, users_service: Service, users: UserWorld
) -> None:
    items = users.world.ids[:9].tolist()

    def defaulted() -> set[str]:
        return set(of_v1(users_service, user_id=NEW, candidates=items)["defaulted"])

    with pytest.raises(Refused) as refusal:
        await ask("patch_user", NEW, {"country": 1})
    assert refusal.value.status == 404
    await ask("put_user", NEW, RECORD)
    assert not defaulted() & RECORD.keys()
    await ask("patch_user", NEW, {"country": 0})
    assert defaulted() & RECORD.keys() == {"country"}
    await ask("delete_user", NEW)
    assert defaulted() >= RECORD.keys()
    with pytest.raises(Refused, match="has no record") as refusal:
        await ask("delete_user", NEW)
    assert refusal.value.status == 404
    with pytest.raises(Refused, match="country"):
        await ask("put_user", NEW, {**RECORD, "country": -1})


@pytest.fixture
def mapped(users: UserWorld, tmp_path: Path) -> MappedWorld:
    return make_mapped_users(users, tmp_path)


@pytest.mark.parametrize("user", ["a user/of any kind?", "..", "%2e"])
async def test_users_with_text_ids(kind: Kind, mapped: MappedWorld, user: str) -> None:
    with serving(mapped.models, mapped.store) as service:
        client: Any = kind(service.url, deadline_ms=PATIENT_MS)
        await result_of(client.put_user(user, RECORD))
        for one in (user, text_of(KNOWN)):
            features = {"device": 2, "hour": 8.1}
            body = {"user_id": one, "candidates": mapped.items[:9], "features": features}
            expected = np.array(of_v1(service, **body)["scores"], np.float32)
            found = await result_of(client.score(one, mapped.items[:9], features=features))
            same_bits(found.scores, expected)
        await result_of(client.delete_user(user))
        await result_of(client.close())


async def test_writes_go_where_clicks_go(kind: Kind, users_service: Service) -> None:
    client: Any = kind("http://127.0.0.1:1", events_url=users_service.url, deadline_ms=PATIENT_MS)
    await result_of(client.put_user(NEW + 1, RECORD))
    await result_of(client.delete_user(NEW + 1))
    await result_of(client.close())
