"""Models with user and request features by the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import inf, isnan, nan
from pathlib import Path
from struct import pack
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.testing import assert_allclose

from feature_store.contract import Ids
from tests.service.api.oip.raw import INFER, blob, body, ids, listed, post, refused
from tests.service.api.oip.test_text_tensors import text_tensor
from tests.service.api.oip.triton import (
    MODEL,
    Asked,
    number_tensor,
    same_bits,
    tensor,
    triton_client,
)
from tests.service.in_process import client_of, metric, opened
from tests.service.live import until
from tests.service.mapped_world import text_of
from tests.service.parity import TOLERANCE
from tests.service.process import Service, serving
from tests.service.user_world import (
    REQUEST_FEATURES,
    USER_FEATURES,
    UserWorld,
    add_levels,
    make_mapped_users,
    make_user_world,
)
from tests.service.world import World, make_world

KNOWN, NOBODY = 11, 10**12


@pytest.fixture(scope="module")
def user_world(tmp_path_factory: pytest.TempPathFactory) -> UserWorld:
    return make_user_world(tmp_path_factory.mktemp("user_tensors"))


@pytest.fixture(scope="module")
def users_service(user_world: UserWorld) -> Iterator[Service]:
    with serving(user_world.world.models, user_world.world.store) as service:
        yield service


@pytest.fixture(scope="module")
def users_client(users_service: Service) -> Iterator[httpx.Client]:
    with users_service.client() as client:
        yield client


def number(name: str, values: Any, **changed: Any) -> dict[str, Any]:
    """An FP32 tensor in JSON."""
    return listed(name, values, **{"datatype": "FP32", **changed})


def number_blob(name: str, size: int = 4) -> dict[str, Any]:
    return blob(name, 1, size, datatype="FP32")


def scored(client: httpx.Client, user: int, items: Ids, **more: Any) -> dict[str, Any]:
    content = {"user_id": user, "candidates": items.tolist(), **more}
    answer = client.post("/v1/score", json=content)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_records_are_read_and_request_features_are_missing(user_world: UserWorld) -> None:
    items = user_world.world.ids[:9]
    async with opened(user_world.world) as state, client_of(state) as client:
        for user in (KNOWN, NOBODY):
            inputs = [listed("user_id", [user]), listed("item_id", items.tolist())]
            answer = (await client.post(INFER, json={"inputs": inputs})).json()
            scores = next(o["data"] for o in answer["outputs"] if o["name"] == "score")
            assert_allclose(scores, user_world.exact(user, items), atol=TOLERANCE)
            missing = answer["parameters"]["defaulted"].split(", ")
            assert missing[-2:] == REQUEST_FEATURES
            assert (missing[:-2] == USER_FEATURES) is (user == NOBODY)


def of_two(first: dict[str, Any], *more: dict[str, Any]) -> bytes:
    return body(listed("user_id", [KNOWN]), listed("item_id", [1, 2]), first, *more)


# Tensors beside user_id and item_id, and what the refusal says.
WRONG: dict[str, tuple[bytes, bytes, str]] = {
    "type of a number": (
        of_two(listed("hour", [8])),
        b"",
        "inputs.hour.datatype: must be FP32: hour is a number",
    ),
    "type of an index": (
        of_two(number("device", [2.0])),
        b"",
        "inputs.device.datatype: must be INT64: device is an index",
    ),
    "other type": (of_two(number("hour", [8.0], datatype="FP64")), b"", "inputs.hour.datatype"),
    "context in FP32": (
        of_two(number("likes_level", [2.0])),
        b"",
        "inputs.likes_level.datatype: must be INT64: likes_level is an index",
    ),
    "two indices": (
        of_two(listed("device", [1, 2])),
        b"",
        "context.device: a request feature: one value",
    ),
    "no index": (of_two(listed("device", [])), b"", "context.device: a request feature: one v"),
    "two numbers": (of_two(number("hour", [8.0, 9.0])), b"", "inputs.hour.shape: 1 of them"),
    "a matrix": (of_two(number("hour", [8.0], shape=[1, 1])), b"", "inputs.hour.shape: one dim"),
    "unknown index": (of_two(listed("mood", [1])), b"", "features.mood: no such request feature"),
    "unknown number": (of_two(number("mood", [1.0])), b"", "features.mood: no such request"),
    "of the user": (of_two(listed("country", [1])), b"", "features.country: no such request"),
    "index beyond": (of_two(listed("device", [6])), b"", "features.device: Input should be"),
    "index negative": (of_two(listed("device", [-1])), b"", "inputs.device.0: Input should be"),
    "infinity": (
        of_two(number_blob("hour")),
        pack("<f", inf),
        "features.hour: Input should be a f",
    ),
    "overflow": (of_two(number("hour", [1e38])), b"", "features.hour: so large that"),
    "beyond FP32": (of_two(number("hour", [1e39])), b"", "features.hour: Input should be a finite"),
    "text": (of_two(number("hour", ["8"])), b"", "inputs.hour.data.0: Input should be a valid nu"),
    "true": (of_two(number("hour", [True])), b"", "inputs.hour.data.0: Input should be a valid n"),
    "null": (of_two(number("hour", [None])), b"", "inputs.hour.data.0: Input should be a valid n"),
    "huge": (of_two(number("hour", [1.5])).replace(b"1.5", b"1" * 400), b"", "inputs.hour.data.0"),
    "fraction of an item": (
        body(listed("user_id", [1]), listed("item_id", [1.5]), number("hour", [8.0])),
        b"",
        "inputs.item_id.data.0: Input should be a valid integer",
    ),
    "size": (of_two(number_blob("hour", 8)), bytes(8), "binary_data_size: 4 bytes, for shape [1]"),
    "missing blob": (of_two(number_blob("hour")), bytes(3), "hour: binary_data_size is 4, but 3"),
    "missing second blob": (
        of_two(number_blob("hour"), blob("likes_level", 2)),
        bytes(4),
        "inputs.likes_level: binary_data_size is 16, but 0 bytes are left",
    ),
    "bytes too many": (of_two(number_blob("hour")), bytes(5), "body: 1 bytes behind the last"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_tensor_of_a_request_feature_is_refused_by_name(
    users_client: httpx.Client, wrong: str
) -> None:
    header, blobs, said = WRONG[wrong]
    assert said in refused(post(users_client, header, blobs))


@pytest.mark.parametrize("binary", list(product([True, False], repeat=5)))
def test_tensors_of_request_features_get_the_bits_of_v1(
    users_service: Service,
    users_client: httpx.Client,
    user_world: UserWorld,
    binary: tuple[bool, ...],
) -> None:
    """In every mix of JSON and blobs; numbers of 4 bytes lie before those of 8."""
    items = user_world.world.ids[:40]
    levels, features = np.arange(40) % 11, {"device": 2, "hour": 8.1}
    expected = scored(
        users_client, KNOWN, items, features=features, context={"likes_level": levels.tolist()}
    )
    one, two, three, four, five = binary
    inputs = [
        number_tensor("hour", 8.1, binary=one),
        tensor("user_id", np.array([KNOWN]), binary=two),
        tensor("device", np.array([2]), binary=three),
        tensor("item_id", items, binary=four),
        tensor("likes_level", levels, binary=five),
    ]
    with triton_client(users_service.port) as client:
        answer = client.infer(MODEL, inputs)
    same_bits(answer.as_numpy("score"), np.array(expected["scores"], np.float32))
    missing = answer.get_response().get("parameters", {}).get("defaulted", "")
    assert missing == ", ".join(expected["defaulted"])
    assert not {"device", "hour"} & set(expected["defaulted"])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("index", "hour", "missing"),
    [
        (None, None, REQUEST_FEATURES),
        (0, nan, REQUEST_FEATURES),
        (3, nan, ["hour"]),
        (None, 0.0, ["device"]),
        (5, -3.5, []),
    ],
)
def test_a_feature_is_missing_without_its_tensor_and_by_0_and_nan(
    users_service: Service,
    users_client: httpx.Client,
    user_world: UserWorld,
    binary: bool,
    index: int | None,
    hour: float | None,
    missing: list[str],
) -> None:
    items = user_world.world.ids[:9]
    given = {"device": index, "hour": None if hour is None or isnan(hour) else hour}
    expected = scored(users_client, NOBODY, items, features=given)
    inputs = Asked(NOBODY, items).inputs()
    if index is not None:
        inputs.append(tensor("device", np.array([index]), binary=binary))
    if hour is not None:
        inputs.append(number_tensor("hour", hour, binary=binary))
    with triton_client(users_service.port) as client:
        answer = client.infer(MODEL, inputs)
    same_bits(answer.as_numpy("score"), np.array(expected["scores"], np.float32))
    assert answer.get_response()["parameters"]["defaulted"] == ", ".join(USER_FEATURES + missing)


def test_the_datatype_may_be_written_with_escapes(users_client: httpx.Client) -> None:
    given = of_two(number("hour", [8.5])).replace(b"FP32", b"\\u0046P32")
    assert post(users_client, given).status_code == 200


def test_the_same_json_with_another_number_is_another_request(
    users_client: httpx.Client, user_world: UserWorld
) -> None:
    item = user_world.world.ids[0].item()
    header = body(number_blob("hour"), blob("user_id", 1), blob("item_id", 1))
    found = [
        post(users_client, header, pack("<f", hour) + ids(KNOWN, item)).json()["outputs"][0]["data"]
        for hour in (8.5, 21.0, 8.5)
    ]
    assert found[0] == found[2] != found[1]


def test_metadata_lists_request_features_and_config_says_they_are_optional(
    users_service: Service,
) -> None:
    with triton_client(users_service.port) as client:
        metadata, config = client.get_model_metadata(MODEL), client.get_model_config(MODEL)
    inputs = {t["name"]: (t["datatype"], t["shape"]) for t in metadata["inputs"]}
    assert (inputs["device"], inputs["hour"]) == (("INT64", [1]), ("FP32", [1]))
    assert "country" not in inputs
    optional = {t["name"]: (t["data_type"], t["optional"]) for t in config["input"]}
    assert (optional["device"], optional["hour"]) == (("TYPE_INT64", True), ("TYPE_FP32", True))
    assert config["parameters"]["device_vocabulary"] == {"string_value": "6"}


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=6)


async def test_tensors_of_another_version_are_left_out_and_named(plain: World) -> None:
    items = plain.ids[:9]
    inputs = [listed("user_id", [2]), listed("item_id", items.tolist())]
    content = body(*inputs, listed("device", [2]), number("hour", [8.1]), odd=1)
    async with opened(plain) as state, client_of(state) as client:
        before = (await client.post(INFER, content=body(*inputs))).json()
        assert "features.device" in refused(await client.post(INFER, content=content))
        users = await add_levels(plain)
        await state.manager.set_shadow("levels-1", 1.0)
        after = (await client.post(INFER, content=content)).json()
        assert after["outputs"] == before["outputs"]
        assert after["parameters"]["ignored"] == "odd, device, hour"
        await until(lambda: metric(state, "qin_shadow_requests_total", outcome="scored") == 1)
        exact = users.exact(2, items, {"device": 2, "hour": 8.1})
        apart = abs(exact - after["outputs"][0]["data"]).mean()
        shadow = state.manager.shadow.as_json()
        assert shadow is not None
        assert shadow["mean_abs_delta_p"] == pytest.approx(apart, abs=TOLERANCE)
        misspelt = body(*inputs, listed("devise", [2]))
        assert "features.devise" in refused(await client.post(INFER, content=misspelt))


def test_features_go_with_text_ids(user_world: UserWorld, tmp_path: Path) -> None:
    mapped = make_mapped_users(user_world, tmp_path)
    user, items = text_of(KNOWN), mapped.items[:20]
    features = {"device": 2, "hour": 8.1}
    with serving(mapped.models, mapped.store) as service, service.client() as client:
        v1 = {"user_id": user, "candidates": items, "features": features}
        expected = np.array(client.post("/v1/score", json=v1).json()["scores"], np.float32)
        for binary in product([True, False], repeat=3):
            inputs = [
                number_tensor("hour", 8.1, binary=binary[0]),
                text_tensor("user_id", [user], binary=binary[1]),
                text_tensor("item_id", items, binary=True),
                tensor("device", np.array([2]), binary=binary[2]),
            ]
            with triton_client(service.port) as triton:
                same_bits(triton.infer(MODEL, inputs).as_numpy("score"), expected)
        for wrong, said in (
            (listed("hour", [8]), "inputs.hour.datatype: must be FP32: hour is a number"),
            (number("hour", ["8"]), "inputs.hour.data.0: Input should be a valid number"),
            (number("device", [2.0]), "inputs.device.datatype: must be INT64: device is an index"),
        ):
            texts = [listed("user_id", [user], datatype="BYTES")]
            texts.append(listed("item_id", items[:1], datatype="BYTES"))
            assert said in refused(post(client, body(*texts, wrong)))
