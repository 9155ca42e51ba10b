"""Models with user and request features by the Open Inference Protocol, which has no tensors for
the latter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose

from tests.service.api.oip.raw import INFER
from tests.service.in_process import client_of, opened
from tests.service.parity import TOLERANCE
from tests.service.user_world import REQUEST_FEATURES, USER_FEATURES, UserWorld, make_user_world

KNOWN, NOBODY = 11, 10**12


@pytest.fixture
def users(tmp_path: Path) -> UserWorld:
    return make_user_world(tmp_path)


def tensor(name: str, *values: int) -> dict[str, Any]:
    return {"name": name, "datatype": "INT64", "shape": [len(values)], "data": values}


async def test_records_are_read_and_request_features_are_missing(users: UserWorld) -> None:
    items = users.world.ids[:9]
    async with opened(users.world) as state, client_of(state) as client:
        for user in (KNOWN, NOBODY):
            inputs = [tensor("user_id", user), tensor("item_id", *items.tolist())]
            answer = (await client.post(INFER, json={"inputs": inputs})).json()
            scores = next(o["data"] for o in answer["outputs"] if o["name"] == "score")
            assert_allclose(scores, users.exact(user, items), atol=TOLERANCE)
            missing = answer["parameters"]["defaulted"].split(", ")
            assert missing[-2:] == REQUEST_FEATURES
            assert (missing[:-2] == USER_FEATURES) is (user == NOBODY)


async def test_a_tensor_of_a_request_feature_is_refused_by_name(users: UserWorld) -> None:
    inputs = [tensor("user_id", KNOWN), tensor("item_id", 1), tensor("device", 3)]
    async with opened(users.world) as state, client_of(state) as client:
        answer = await client.post(INFER, json={"inputs": inputs})
        assert answer.status_code == 400
        assert answer.json()["error"].endswith("give it in `features` of /v1/score")
