"""What was made of a request's JSON is kept where it comes again, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.api.oip import request_cache
from service.api.oip.inputs import query_of
from service.api.oip.request_cache import LONGEST_KEPT, MOST_KEPT, RequestCache
from service.errors import InvalidField
from tests.service.api.oip.raw import blob, body, listed

MOST = 5000  # candidates


def header(count: int, **members: object) -> bytes:
    return bytes(body(blob("user_id", 1), blob("item_id", count), **members))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every JSON that was really read."""
    seen: list[bytes] = []
    truly = request_cache._read

    def noted(given: bytes, *bounds: Any) -> request_cache.ParsedRequest:
        seen.append(given)
        return truly(given, *bounds)

    monkeypatch.setattr(request_cache, "_read", noted)
    return seen


def test_the_same_json_with_other_blobs_is_read_once_and_asks_for_others(read: list[bytes]) -> None:
    plans, json = RequestCache(MOST), header(2)
    for user in (1, 2):
        whole = json + np.array([user, 10 * user, 11 * user], "<i8").tobytes()
        query = query_of(plans.read(json).inputs, whole, len(json))
        assert query.user_id == user
        assert query.candidates.tolist() == [10 * user, 11 * user]
    assert read == [json]


@pytest.mark.parametrize(
    "json",
    [
        header(2, id="mine"),
        bytes(body(listed("user_id", [1]), blob("item_id", 2))),
        header(2, parameters={"x": "x" * LONGEST_KEPT}),
    ],
    ids=["its own id", "ids in it", "too long"],
)
def test_what_is_of_one_request_alone_is_not_kept(json: bytes, read: list[bytes]) -> None:
    plans = RequestCache(MOST)
    assert plans.read(json) == plans.read(json)
    assert read == [json, json]


def test_a_refusal_is_not_kept(read: list[bytes]) -> None:
    plans, json = RequestCache(MOST), bytes(body(blob("user_id", 1, datatype="FP32")))
    for _ in range(2):
        with pytest.raises(InvalidField):
            plans.read(json)
    assert read == [json, json]


def test_the_oldest_makes_room(read: list[bytes]) -> None:
    plans = RequestCache(MOST)
    for count in range(1, MOST_KEPT + 2):
        plans.read(header(count))
    plans.read(header(MOST_KEPT + 1))
    assert len(read) == MOST_KEPT + 1
    plans.read(header(1))
    assert len(read) == MOST_KEPT + 2
