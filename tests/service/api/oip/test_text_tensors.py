"""BYTES tensors of ids, where the store's ids are texts, get the bits of its ``/v1/score``."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.api.body import TextContents
from service.api.ids import NO_TEXT
from service.api.oip.id_tensors import IdTensors
from service.api.oip.message import TextInferRequest
from service.api.oip.request_cache import RequestCache
from tests.service.api.oip.triton import MODEL, same_bits, tensor, triton_client
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.process import Service

USER = text_of(3)
INFER = f"/v2/models/{MODEL}/infer"


def text_tensor(name: str, values: list[str], *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, [len(values)], "BYTES")
    array = np.array([value.encode() for value in values], np.object_)
    return made.set_data_from_numpy(array, binary_data=binary)


def blob(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def sent(client: httpx.Client, blobs: dict[str, tuple[int, bytes]], **more: Any) -> httpx.Response:
    """A binary request: by name, how many texts, and their bytes."""
    inputs = [
        {
            "name": name,
            "shape": [count],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(content)},
            **more,
        }
        for name, (count, content) in blobs.items()
    ]
    header = json.dumps({"inputs": inputs}).encode()
    body = header + b"".join(content for _, content in blobs.values())
    headers = {"Inference-Header-Content-Length": str(len(header))}
    return client.post(INFER, content=body, headers=headers)


@pytest.mark.parametrize("binary", list(product([True, False], repeat=4)))
def test_inputs_in_every_mix_of_json_and_blobs_get_the_bits_of_v1(
    mapped: MappedWorld, mapped_service: Service, texts: httpx.Client, binary: tuple[bool, ...]
) -> None:
    items, past = [*mapped.items[:40], "never seen", mapped.items[3]], mapped.items[50:57]
    levels = np.arange(len(items)) % 11
    body = {
        "user_id": USER,
        "candidates": items,
        "history": past,
        "context": {"likes_level": levels.tolist()},
    }
    expected = texts.post("/v1/score", json=body).json()["scores"]
    one, two, three, four = binary
    inputs = [
        text_tensor("user_id", [USER], binary=one),
        tensor("likes_level", levels, binary=two),
        text_tensor("item_id", items, binary=three),
        text_tensor("history", past, binary=four),
    ]
    with triton_client(mapped_service.port) as client:
        answer = client.infer(MODEL, inputs)
    same_bits(answer.as_numpy("score"), np.array([s or 0.0 for s in expected], np.float32))
    assert answer.as_numpy("known").tolist() == [item != "never seen" for item in items]
    assert answer.get_response()["parameters"]["unknown_items"] == 1


def test_the_stored_history_is_that_of_the_users_text(
    mapped: MappedWorld, texts: httpx.Client
) -> None:
    items = mapped.items[:9]
    expected = texts.post("/v1/score", json={"user_id": USER, "candidates": items}).json()
    blobs = {
        "user_id": (1, blob(USER.encode())),
        "item_id": (9, blob(*(item.encode() for item in items))),
    }
    answer = sent(texts, blobs)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == expected["scores"]
    assert "cold_user" not in answer.json().get("parameters", {})
    blobs["user_id"] = (1, blob(b"no such user"))
    assert sent(texts, blobs).json()["parameters"]["cold_user"] is True


@pytest.mark.parametrize(
    ("blobs", "said"),
    [
        ({"item_id": (1, blob(b""))}, "inputs.item_id.binary_data_size"),
        ({"item_id": (2, blob(b"", b"ab"))}, f"inputs.item_id.0: {NO_TEXT}"),
        ({"item_id": (1, blob(b"a" * 129))}, f"inputs.item_id.0: {NO_TEXT}"),
        ({"item_id": (1, blob(b"a" * 513))}, "inputs.item_id.binary_data_size"),
        ({"item_id": (2, blob(b"a", b"\xff"))}, "inputs.item_id.1: not UTF-8"),
        ({"item_id": (1, blob(b"\xed\xa0\x80"))}, "inputs.item_id.0: not UTF-8"),
        ({"item_id": (1, blob(b"a", b"b"))}, "inputs.item_id: the texts and their lengths are 5"),
        ({"item_id": (1, b"\xff\xff\xff\xffab")}, "inputs.item_id: the texts and their lengths"),
        ({"item_id": (2, blob(b"abcdef")[:-1] + b"")}, "inputs.item_id"),
        ({"history": (1, blob(b"a", b""))}, "inputs.history: the texts and their lengths"),
        ({"user_id": (2, blob(b"a", b"b"))}, "inputs.user_id.shape"),
        ({"item_id": (0, b"")}, "inputs.item_id.shape"),
    ],
)
def test_a_blob_that_is_no_texts_is_refused(
    texts: httpx.Client, blobs: dict[str, tuple[int, bytes]], said: str
) -> None:
    right = {"user_id": (1, blob(b"u")), "item_id": (1, blob(b"a"))}
    answer = sent(texts, right | blobs)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(said)


def test_bytes_behind_the_tensors_are_refused(texts: httpx.Client) -> None:
    answer = sent(texts, {"user_id": (1, blob(b"u")), "item_id": (1, blob(b"a"))}, name="user_id")
    assert (answer.status_code, "given more than once" in answer.text) == (400, True)
    header = b'{"inputs":[{"name":"user_id","shape":[1],"datatype":"BYTES","data":["u"]},'
    header += b'{"name":"item_id","shape":[1],"datatype":"BYTES","data":["a"]}]}'
    headers = {"Inference-Header-Content-Length": str(len(header))}
    answer = texts.post(INFER, content=header + b"x", headers=headers)
    assert (answer.status_code, answer.json()["error"][:4]) == (400, "body")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"datatype": "INT64", "data": [7]}, "datatype: BYTES: the ids of this store are texts"),
        ({"datatype": "FP32", "data": [7]}, "datatype: BYTES: the ids of this store are texts"),
        ({"datatype": "BYTES", "data": [7]}, f"data.0: {NO_TEXT}"),
        ({"datatype": "BYTES", "data": [["a"]]}, f"data.0: {NO_TEXT}"),
        ({"datatype": "BYTES", "data": [""]}, f"data.0: {NO_TEXT}"),
        ({"datatype": "BYTES", "data": ["a", "b"]}, "data: 2 values for shape [1]"),
        ({"datatype": "BYTES"}, "data or binary_data_size: one of them"),
    ],
)
def test_json_that_is_no_texts_is_refused(
    texts: httpx.Client, item: dict[str, Any], said: str
) -> None:
    user = {"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["u"]}
    item = {"name": "item_id", "shape": [1], **item}
    answer = texts.post(INFER, json={"inputs": [user, item]})
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]
    assert answer.json()["error"].startswith("inputs.item_id")


def test_a_context_feature_stays_int64(mapped: MappedWorld, texts: httpx.Client) -> None:
    def asked(level: dict[str, Any]) -> httpx.Response:
        ids = (("user_id", [USER]), ("item_id", mapped.items[:1]))
        inputs = [{"name": n, "shape": [1], "datatype": "BYTES", "data": d} for n, d in ids]
        level = {"name": "likes_level", "shape": [1], **level}
        return texts.post(INFER, json={"inputs": [*inputs, level]})

    assert asked({"datatype": "INT64", "data": [3]}).status_code == 200
    for wrong in (
        {"datatype": "BYTES", "data": ["3"]},
        {"datatype": "INT64", "data": ["3"]},
        {"datatype": "INT64", "data": [-1]},
        {"datatype": "INT64", "data": [2**63]},
        {"datatype": "INT64", "data": [1.5]},
    ):
        answer = asked(wrong)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"].startswith("inputs.likes_level")


def test_the_numeric_store_refuses_bytes(client: httpx.Client) -> None:
    answer = sent(client, {"user_id": (1, blob(b"u")), "item_id": (1, blob(b"a"))})
    assert answer.status_code == 400
    assert answer.json()["error"] == "inputs.user_id.datatype: INT64, as ids are"


def test_metadata_and_configuration_say_bytes(texts: httpx.Client) -> None:
    metadata = texts.get(f"/v2/models/{MODEL}").json()
    types = {one["name"]: one["datatype"] for one in metadata["inputs"]}
    ids = {"user_id", "item_id", "history"}
    assert types == {n: "BYTES" if n in ids else "INT64" for n in types}
    assert ids < set(types)
    config = texts.get(f"/v2/models/{MODEL}/config").json()["input"]
    assert {one["name"] for one in config if one["data_type"] == "TYPE_STRING"} == ids


def test_a_name_given_twice_in_json_is_refused(texts: httpx.Client) -> None:
    body = (
        b'{"inputs":[{"name":"user_id","shape":[1],"datatype":"BYTES","data":["\\"u"]},'
        b'{"name":"item_id","shape":[1],"shape":[1],"datatype":"BYTES","data":["a"]}]}'
    )
    answer = texts.post(INFER, content=body)
    assert (answer.status_code, "more than once" in answer.text) == (400, True)


def test_requests_with_the_same_json_are_parsed_once(mapped: MappedWorld) -> None:
    made = []

    def inputs(message: Any, most: int) -> Any:
        made.append(most)
        return type("Inputs", (), {"in_blobs": True})()

    cache = RequestCache(50, 2, IdTensors("BYTES", TextContents, TextInferRequest, inputs))
    parameters = {"binary_data_size": 5}
    header = json.dumps(
        {
            "inputs": [
                {"name": n, "shape": [1], "datatype": "BYTES", "parameters": parameters}
                for n in ("user_id", "item_id")
            ]
        }
    ).encode()
    assert cache.read(header) is cache.read(header)
    assert made == [50]


def test_as_many_of_the_longest_texts_as_candidates_are_taken(texts: httpx.Client) -> None:
    items = [f"{n}".ljust(128, "é") for n in range(3000)]
    blobs = {
        "user_id": (1, blob(b"u")),
        "item_id": (3000, blob(*(item.encode() for item in items))),
    }
    answer = sent(texts, blobs)
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"]["unknown_items"] == 3000


def test_a_wrong_text_among_triton_inputs_is_an_error_of_the_client(
    mapped_service: Service,
) -> None:
    inputs = [
        text_tensor("user_id", ["u"], binary=True),
        text_tensor("item_id", ["a" * 129], binary=True),
    ]
    with (
        triton_client(mapped_service.port) as client,
        pytest.raises(InferenceServerException, match=r"inputs\.item_id\.0"),
    ):
        client.infer(MODEL, inputs)
