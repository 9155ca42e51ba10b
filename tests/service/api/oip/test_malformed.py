"""Whatever is sent, a clear ``{"error": …}``: never a 500, never a byte from beyond the body."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.service.api.oip.raw import INFER, LENGTH, blob, body, ids, listed, post, refused

USER, ITEMS = listed("user_id", [3]), listed("item_id", [1, 2])
LIMIT = 1_048_576

# JSON, blobs behind it, and what the refusal says.
WRONG: dict[str, tuple[bytes, bytes, str]] = {
    "empty": (b"", b"", "body: "),
    "no JSON": (b"inputs=1", b"", "body: "),
    "a list": (b"[]", b"", "body: "),
    "no inputs": (b"{}", b"", "inputs: Field required"),
    "empty inputs": (body(), b"", "inputs: "),
    "too many inputs": (body(*[USER] * 199), b"", "inputs: "),
    "no user": (body(ITEMS), b"", "inputs.user_id: Field required"),
    "no items": (body(USER), b"", "inputs.item_id: Field required"),
    "an input twice": (body(USER, ITEMS, USER), b"", "inputs.user_id: given more than once"),
    "a member twice": (body(USER, ITEMS)[:-1] + b',"inputs":[]}', b"", "inputs: "),
    "unknown input": (body(USER, ITEMS, listed("mood", [1, 2])), b"", "no such context feature"),
    "two users": (body(listed("user_id", [3, 4]), ITEMS), b"", "inputs.user_id.shape: 1 of them"),
    "no items at all": (body(USER, listed("item_id", [])), b"", "inputs.item_id.shape: 1 to 5000"),
    "over-long": (body(USER, blob("item_id", 5001)), ids(*[1] * 5001), "inputs.item_id.shape: "),
    "long history": (body(USER, ITEMS, listed("history", [1] * 13)), b"", "history: at most 12"),
    "negative user": (body(listed("user_id", [-1]), ITEMS), b"", "inputs.user_id.0: "),
    "negative item": (body(USER, blob("item_id", 2)), ids(4, -1), "inputs.item_id.1: "),
    "negative history": (body(USER, ITEMS, blob("history", 1)), ids(-5), "inputs.history.0: "),
    "beyond INT64": (body(USER, listed("item_id", [2**63])), b"", "inputs.1.data.0: "),
    "level beyond int32": (
        body(USER, ITEMS, blob("likes_level", 2)),
        ids(1, 2**32 + 1),
        "inputs.likes_level.1: ",
    ),
    "level of no meaning": (body(USER, ITEMS, blob("likes_level", 2)), ids(1, 11), "likes_level.1"),
    "too few levels": (body(USER, ITEMS, blob("likes_level", 1)), ids(1), "1 values for 2"),
    "a fraction": (body(USER, listed("item_id", [1.5])), b"", "inputs.1.data.0: "),
    "1.0": (body(USER, listed("item_id", [1.0])), b"", "inputs.1.data.0: "),
    "true": (body(listed("user_id", [True]), ITEMS), b"", "inputs.0.data.0: "),
    "a string": (body(listed("user_id", ["3"]), ITEMS), b"", "inputs.0.data.0: "),
    "nested": (body(listed("user_id", [[3]]), ITEMS), b"", "inputs.0.data.0: "),
    "other type": (
        body(USER, blob("item_id", 2, datatype="UINT64")),
        ids(1, 2),
        "inputs.item_id.datatype: INT64",
    ),
    "FP32": (body(USER, blob("item_id", 4, datatype="FP32")), ids(1, 2), "item_id.datatype"),
    "two dimensions": (body(USER, blob("item_id", 2, shape=[1, 2])), ids(1, 2), "one dimension"),
    "no dimension": (body(USER, listed("item_id", [1], shape=[])), b"", "inputs.1.shape: "),
    "negative shape": (body(USER, blob("item_id", 2, shape=[-1])), ids(1, 2), "inputs.1.shape.0: "),
    "huge shape": (
        body(USER, blob("item_id", 2, shape=[2**62])),
        ids(1, 2),
        f"inputs.item_id.binary_data_size: {2**65} bytes",
    ),
    "huge shape, listed": (
        body(USER, listed("item_id", [1], shape=[2**62])),
        b"",
        "inputs.item_id.data: 1 values for shape",
    ),
    "shape that is none": (body(USER, blob("item_id", 2, shape="2")), ids(1, 2), "inputs.1.shape"),
    "neither data nor blob": (
        body(USER, {"name": "item_id", "shape": [1], "datatype": "INT64"}),
        b"",
        "inputs.item_id: data or binary_data_size",
    ),
    "data and blob": (body(USER, blob("item_id", 1, data=[1])), ids(1), "item_id: data and "),
    "blob of other size": (body(USER, blob("item_id", 2, 15)), ids(1, 2), "16 bytes, for shape"),
    "negative size": (body(USER, blob("item_id", 2, -16)), ids(1, 2), "16 bytes, for shape"),
    "size of no number": (body(USER, blob("item_id", 2, "16")), ids(1, 2), "16 bytes, for shape"),
    "size true": (body(USER, blob("item_id", 2, True)), ids(1, 2), "16 bytes, for shape"),
    "missing blob": (body(USER, blob("item_id", 2)), ids(1), "16, but 8 bytes are left"),
    "missing second blob": (
        body(blob("user_id", 1), blob("item_id", 2)),
        ids(3),
        "inputs.item_id: binary_data_size is 16, but 0 bytes are left",
    ),
    "bytes too many": (body(USER, blob("item_id", 1)), ids(1, 2), "body: 8 bytes behind the last"),
    "blob of no tensor": (body(USER, ITEMS), ids(1), "body: 8 bytes behind the last"),
    "shared memory": (
        body(USER, blob("item_id", 1, parameters={"shared_memory_region": "r"})),
        b"",
        "no shared memory",
    ),
    "unknown output": (body(USER, ITEMS, outputs=[{"name": "p"}]), b"", "outputs.p: no such"),
    "output twice": (body(USER, ITEMS, outputs=[{"name": "score"}] * 2), b"", "more than once"),
    "binary_data of no kind": (
        body(USER, ITEMS, outputs=[{"name": "score", "parameters": {"binary_data": 1}}]),
        b"",
        "outputs.score.parameters.binary_data: true or false",
    ),
    "binary_data_output of no kind": (
        body(USER, ITEMS, parameters={"binary_data_output": "yes"}),
        b"",
        "parameters.binary_data_output: true or false",
    ),
    "negative timeout": (body(USER, ITEMS, parameters={"timeout": -1}), b"", "parameters.timeout"),
    "timeout of no number": (body(USER, ITEMS, parameters={"timeout": True}), b"", "timeout: "),
    "id of no string": (body(USER, ITEMS, id=7), b"", "id: "),
    "endless id": (body(USER, ITEMS, id="x" * 1025), b"", "id: "),
    "half a surrogate": (body(USER, ITEMS)[:-1] + b',"id":"\\ud800"}', b"", "at line 1 column 149"),
    "depth": (b'{"inputs":' + b"[" * 100_000, b"", "at line 1 column 211"),
    "90,000 names": (b"{%s}" % b",".join(b'"k%d":1' % i for i in range(90_000)), b"", "body: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(client: httpx.Client, name: str) -> None:
    header, blobs, said = WRONG[name]
    assert said in refused(post(client, header, blobs))


@pytest.mark.parametrize("length", ["", "x", "-1", "1.5", "1" * 30, "9999", "٣", "12, 12", "0x10"])
def test_a_wrong_length_of_the_json_is_refused(client: httpx.Client, length: str) -> None:
    header = body(USER, blob("item_id", 1))
    given = [(LENGTH.encode(), length.encode())]
    answer = client.post(INFER, content=header + ids(1), headers=given)
    assert LENGTH in refused(answer)


@pytest.mark.parametrize("off", [-1, 1, 8])
def test_a_length_that_is_off_is_no_json(client: httpx.Client, off: int) -> None:
    header = body(USER, blob("item_id", 1))
    refused(post(client, header, ids(1), str(len(header) + off)))


def test_the_length_given_twice_is_refused(client: httpx.Client) -> None:
    header = body(USER, blob("item_id", 1))
    given = [(LENGTH, str(len(header)))] * 2
    assert LENGTH in refused(client.post(INFER, content=header + ids(1), headers=given))


def test_a_timeout_of_any_length_is_a_number(client: httpx.Client) -> None:
    given = body(USER, ITEMS, parameters={"timeout": 1}).replace(b":1}", b":%d}" % 10**4000)
    assert post(client, given).status_code == 200
    refused(post(client, given.replace(b"0", b"00")))  # beyond what any number may have


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_inflates_beyond_the_limit_is_a_413(
    client: httpx.Client, encoding: str
) -> None:
    bomb = b" " * (64 * LIMIT)
    small = gzip.compress(bomb) if encoding == "gzip" else zlib.compress(bomb)
    assert len(small) < LIMIT
    answer = post(client, small, **{"Content-Encoding": encoding})
    assert "when it is inflated" in refused(answer, 413)


def test_the_limit_holds_for_the_inflated_body_to_the_byte(client: httpx.Client) -> None:
    fits = body(USER, ITEMS).ljust(LIMIT)
    answer = post(client, gzip.compress(fits), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    refused(post(client, gzip.compress(fits + b" "), **{"Content-Encoding": "gzip"}), 413)
    refused(post(client, fits + b" "), 413)


GOOD = gzip.compress(body(USER, ITEMS), mtime=0)


@pytest.mark.parametrize(
    "content",
    [GOOD[:-1], GOOD[:20], GOOD + b"x", GOOD + GOOD, b"", b"{}", zlib.compress(b"{}")],
    ids=["a byte short", "cut early", "a byte more", "twice", "empty", "plain", "deflated"],
)
def test_a_compressed_body_that_is_broken_is_refused(client: httpx.Client, content: bytes) -> None:
    assert "gzip" in refused(post(client, content, **{"Content-Encoding": "gzip"}))


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "gzip, deflate", "compress", "x"])
def test_another_encoding_is_a_415(client: httpx.Client, encoding: str) -> None:
    refused(post(client, GOOD, **{"Content-Encoding": encoding}), 415)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip, deflate, br", None),  # what libraries send unasked
        ("gzip;q=0.5, deflate, identity;q=0", "deflate"),
        ("gzip, *;q=0", "gzip"),
        ("br, identity;q=0", None),
        ("", None),
        (",;q=x,", None),
    ],
)
def test_an_answer_is_compressed_for_who_asks_for_it(
    client: httpx.Client, accepted: str | None, encoding: str | None
) -> None:
    request = client.build_request("POST", INFER, content=body(USER, ITEMS))
    del request.headers["Accept-Encoding"]
    if accepted is not None:
        request.headers["Accept-Encoding"] = accepted
    answer = client.send(request)
    assert answer.headers.get("Content-Encoding") == encoding
    assert [output["name"] for output in answer.json()["outputs"]] == ["score", "known"]


def test_paths_and_methods_that_are_not_there_are_refused_in_the_protocols_words(
    client: httpx.Client,
) -> None:
    assert refused(client.get("/v2/nothing"), 404) == "Not Found"
    answer = client.delete(INFER)
    refused(answer, 405)
    assert answer.headers["Allow"] == "POST"


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["user_id", "item_id", "history", "likes_level", "views_level", "x"])
TENSOR = st.fixed_dictionaries(
    {"name": NAMES | ANY, "shape": st.lists(st.integers(-2, 4), max_size=2) | ANY},
    optional={
        "datatype": st.sampled_from(["INT64", "INT64", "INT64", "FP32"]) | ANY,
        "data": st.lists(st.integers(-1, 9), max_size=4) | ANY,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-8, 32) | ANY, "content_type": ANY}
        )
        | ANY,
    },
)
MESSAGE = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=4) | ANY},
    optional={
        "id": st.text(max_size=9) | ANY,
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["score", "known"]) | ANY})
        )
        | ANY,
        "parameters": st.dictionaries(
            st.sampled_from(["timeout", "priority", "binary_data_output", "sequence_id", "x"]), ANY
        )
        | ANY,
    },
)
FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def fine(answer: httpx.Response) -> None:
    """An answer or a refusal; a busy machine may be late."""
    if answer.status_code != 200:
        assert answer.status_code in (400, 413, 415, 503, 504), answer.text
        assert refused(answer, answer.status_code)


@FUZZ
@given(message=MESSAGE, blobs=st.binary(max_size=40), off=st.integers(-3, 3))
def test_no_message_of_any_shape_is_a_500(
    client: httpx.Client, message: dict[str, Any], blobs: bytes, off: int
) -> None:
    content = json.dumps(message).encode()
    fine(post(client, content, blobs, str(max(0, len(content) + off)) if off else None))


@FUZZ
@given(content=st.binary(max_size=300), length=st.text("0123456789-+ x", max_size=5) | st.none())
@example(content=GOOD, length="1")
def test_no_bytes_are_a_500(client: httpx.Client, content: bytes, length: str | None) -> None:
    headers = {} if length is None else {LENGTH: length.strip()}
    for encoding in ("identity", "gzip", "deflate"):
        coded = {**headers, "Content-Encoding": encoding}
        fine(client.post(INFER, content=content, headers=coded))


@FUZZ
@given(
    at=st.integers(0, 400),
    change=st.integers(0, 255),
    cut=st.integers(0, 400),
)
def test_a_good_request_changed_or_cut_anywhere_is_answered_or_refused(
    client: httpx.Client, at: int, change: int, cut: int
) -> None:
    header = body(blob("user_id", 1), blob("item_id", 3), blob("history", 1), id="a")
    content = bytearray(header + ids(3, 1, 2, 3, 5))
    content[at % len(content)] = change
    cut = len(content) - cut % 40 if cut % 2 else len(content)
    fine(client.post(INFER, content=bytes(content[:cut]), headers={LENGTH: str(len(header))}))
