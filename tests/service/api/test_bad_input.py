"""Whatever is sent, the answer is a 4xx problem document that names the field. Never a 500."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.process import Service

DIGITS = b"9" * 10_000
GOOD = b'"user_id":1,"candidates":[1]'
PROBLEM = "application/problem+json"

BAD: dict[str, tuple[bytes, int, str]] = {
    "empty body": (b"", 400, "body"),
    "not JSON": (b"user_id=1", 400, "body"),
    "two documents": (b"{%s}{}" % GOOD, 400, "body"),
    "cut short": (b'{"user_id":1,"candidates":[1,2', 400, "body"),
    "a list": (b"[]", 422, "body"),
    "null": (b"null", 422, "body"),
    "no user": (b'{"candidates":[1]}', 422, "user_id"),
    "no candidates": (b'{"user_id":1}', 422, "candidates"),
    "empty list": (b'{"user_id":1,"candidates":[]}', 422, "candidates"),
    "over-long list": (b'{"user_id":1,"candidates":[%s1]}' % (b"1," * 5000), 422, "candidates"),
    "negative user": (b'{"user_id":-1,"candidates":[1]}', 422, "user_id"),
    "negative item": (b'{"user_id":1,"candidates":[4,-1]}', 422, "candidates.1"),
    "beyond 63 bits": (b'{"user_id":9223372036854775808,"candidates":[1]}', 422, "user_id"),
    "a fraction": (b'{"user_id":1,"candidates":[1.5]}', 422, "candidates.0"),
    "1.0 is no integer": (b'{"user_id":1.0,"candidates":[1]}', 422, "user_id"),
    "true is no integer": (b'{"user_id":true,"candidates":[1]}', 422, "user_id"),
    "a string": (b'{"user_id":"u1","candidates":[1]}', 422, "user_id"),
    "an empty string": (b'{"user_id":"","candidates":[1]}', 422, "user_id"),
    "a string of a fraction": (b'{"user_id":1,"candidates":["1","1.0"]}', 422, "candidates.1"),
    "a string with a sign": (b'{%s,"history":["2","-1"]}' % GOOD, 422, "history.1"),
    "a string with spaces": (b'{"user_id":" 1","candidates":["1"]}', 422, "user_id"),
    "a string with _": (b'{"user_id":1,"candidates":["1_0"]}', 422, "candidates.0"),
    "digits of another script": ('{"user_id":"٣","candidates":[1]}'.encode(), 422, "user_id"),
    "a string beyond 63 bits": (
        b'{"user_id":1,"candidates":[2,"9223372036854775808"]}',
        422,
        "candidates.1",
    ),
    "10,000 digits in a string": (b'{"user_id":"%s","candidates":[1]}' % DIGITS, 422, "user_id"),
    "a string for an index": (
        b'{"user_id":"1","candidates":["1"],"context":{"likes_level":["1"]}}',
        422,
        "context.likes_level.0",
    ),
    "ids as text that is no boolean": (
        b'{%s,"ids_as_strings":"true"}' % GOOD,
        422,
        "ids_as_strings",
    ),
    "a name twice among strings": (
        b'{"user_id":"1","candidates":["1"],"user_id":"2"}',
        422,
        "user_id",
    ),
    "15,000 strings": (b'{"user_id":1,"candidates":[%s"1"]}' % (b'"1",' * 15_000), 422, "body"),
    "null item": (b'{"user_id":1,"candidates":[null]}', 422, "candidates.0"),
    "10,000 digits, user": (b'{"user_id":%s,"candidates":[1]}' % DIGITS, 400, "body"),
    "10,000 digits, item": (b'{"user_id":1,"candidates":[1,%s]}' % DIGITS, 400, "body"),
    "10,000 digits, history": (b'{%s,"history":[%s]}' % (GOOD, DIGITS), 400, "body"),
    "10,000 digits, context": (
        b'{%s,"context":{"likes_level":[%s]}}' % (GOOD, DIGITS),
        400,
        "body",
    ),
    "NaN": (b'{"user_id":NaN,"candidates":[1]}', 422, "user_id"),
    "Infinity": (b'{"user_id":1,"candidates":[Infinity]}', 422, "candidates.0"),
    "-Infinity": (b'{%s,"history":[-Infinity]}' % GOOD, 422, "history.0"),
    "1e400": (b'{%s,"top_k":1e400}' % GOOD, 422, "top_k"),
    "1e400 in context": (
        b'{%s,"context":{"likes_level":[1e400]}}' % GOOD,
        422,
        "context.likes_level.0",
    ),
    "unknown field": (b'{%s,"users":1}' % GOOD, 422, "users"),
    "a name of 100,000 letters": (b'{%s,"%s":1}' % (GOOD, b"x" * 100_000), 422, "x" * 80 + "…"),
    "90,000 names": (
        b"{%s}" % b",".join(b'"k%d":1' % i for i in range(90_000)),
        422,
        "body",
    ),
    "a name twice": (b'{"user_id":1,"user_id":2,"candidates":[1]}', 422, "user_id"),
    "a name twice, disguised": (
        b'{"user_id":1,"\\u0075ser_id":2,"candidates":[1]}',
        422,
        "user_id",
    ),
    "bad UTF-8 in a value": (b'{%s,"model_version":"\xff"}' % GOOD, 400, "body"),
    "bad UTF-8 in a name": (b'{%s,"\xff":1}' % GOOD, 400, "body"),
    "half a surrogate": (b'{%s,"model_version":"\\ud800"}' % GOOD, 400, "body"),
    "a line break in a string": (b'{%s,"model_version":"a\n"}' % GOOD, 400, "body"),
    "depth 100,000": (b'{"user_id":1,"candidates":%s' % (b"[" * 100_000), 400, "body"),
    "depth 100,000 of objects": (b'{"a":' * 100_000, 422, "body"),
    "unknown context": (b'{%s,"context":{"mood":[1]}}' % GOOD, 422, "context.mood"),
    "context too short": (
        b'{"user_id":1,"candidates":[1,2],"context":{"likes_level":[1]}}',
        422,
        "context.likes_level",
    ),
    "context too long": (
        b'{%s,"context":{"likes_level":[1,2]}}' % GOOD,
        422,
        "context.likes_level",
    ),
    "negative context": (
        b'{%s,"context":{"likes_level":[-1]}}' % GOOD,
        422,
        "context.likes_level.0",
    ),
    "context beyond the vocabulary": (
        b'{%s,"context":{"likes_level":[11]}}' % GOOD,
        422,
        "context.likes_level.0",
    ),
    "history longer than the model's": (
        b'{%s,"history":[%s]}' % (GOOD, b",".join([b"1"] * 13)),
        422,
        "history",
    ),
    "history longer than any": (b'{%s,"history":[%s1]}' % (GOOD, b"1," * 2048), 422, "history"),
    "top_k of 0": (b'{%s,"top_k":0}' % GOOD, 422, "top_k"),
    "empty version": (b'{%s,"model_version":""}' % GOOD, 422, "model_version"),
    "unknown version": (b'{%s,"model_version":"no"}' % GOOD, 404, "model_version"),
    "too large": (b'{%s,"history":[%s1]}' % (GOOD, b"1," * 1_000_000), 413, ""),
}
COLUMNS = {"cut short": 30, "not JSON": 1, "half a surrogate": 54, "two documents": 31}


def assert_problem(answer: httpx.Response) -> dict[str, Any]:
    content: dict[str, Any] = answer.json()
    assert answer.headers["Content-Type"] == PROBLEM
    assert content["status"] == answer.status_code
    assert content["request_id"] == answer.headers["X-Request-Id"]
    assert {"type", "title", "detail"} <= set(content)
    assert len(answer.content) < 4096
    return content


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_the_name_of_its_field(client: httpx.Client, name: str) -> None:
    body, status, field = BAD[name]
    answer = client.post("/v1/score", content=body)
    content = assert_problem(answer)
    assert (answer.status_code, content.get("field", "")) == (status, field)
    if status == 400:  # then the place is in the text
        place = re.search(r"at line (?:1|2) column (\d+)$", content["detail"])
        assert place is not None
        assert int(place[1]) <= len(body)
        if name in COLUMNS:
            assert int(place[1]) == COLUMNS[name]


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "soon", "", "1e9"])
def test_a_deadline_that_is_no_time_is_refused(client: httpx.Client, value: str) -> None:
    answer = client.post("/v1/score", content=b"{%s}" % GOOD, headers={"X-Deadline-Ms": value})
    assert answer.status_code == 400
    assert assert_problem(answer)["field"] == "X-Deadline-Ms"


@pytest.mark.parametrize("value", ["", "ONLINE", "1", "batch, online"])
def test_a_priority_that_is_none_is_refused(client: httpx.Client, value: str) -> None:
    answer = client.post("/v1/score", content=b"{%s}" % GOOD, headers={"X-Priority": value})
    assert answer.status_code == 400
    assert assert_problem(answer)["field"] == "X-Priority"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("X-Deadline-Ms", "1000", 400),
        ("X-Priority", "batch", 400),
        ("Content-Encoding", "identity", 415),
    ],
)
def test_a_header_given_twice_is_no_guess(
    client: httpx.Client, name: str, value: str, status: int
) -> None:
    query = {"user_id": 1, "candidates": [1]}
    for times, expected in ((1, 200), (2, status)):
        answer = client.post("/v1/score", json=query, headers=[(name, value)] * times)
        assert answer.status_code == expected


def test_there_is_no_way_around_the_gate(client: httpx.Client) -> None:
    query = {"user_id": 1, "candidates": [1]}
    for path in ("/v1/score%0A", "/v2/models/qin/infer%0A"):
        assert client.post(path, json=query).status_code == 404


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/score", content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert_problem(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/score/", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/score", 405),
        ("HEAD", "/v1/score", 405),
        ("DELETE", "/livez", 405),
    ],
)
def test_what_is_not_there_is_a_problem_document_too(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == PROBLEM


@pytest.mark.parametrize(
    ("path", "named"), [("/", "/docs"), ("/console", "admin port"), ("/console/", "admin port")]
)
def test_what_a_browser_tries_first_is_a_404_that_leads_on(
    client: httpx.Client, path: str, named: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert named in answer.json()["detail"]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
ids = st.integers(-2, 40) | st.integers(2**63 - 2, 2**63 + 1) | scalars
names = st.sampled_from(["user_id", "candidates", "context", "history", "top_k", "model_version"])
fields = st.fixed_dictionaries(
    {"user_id": ids, "candidates": st.lists(ids, max_size=5) | anything},
    optional={
        "context": st.dictionaries(
            st.sampled_from(["likes_level", "views_level", "mood"]), st.lists(ids, max_size=5)
        )
        | anything,
        "history": st.lists(ids, max_size=14) | anything,
        "top_k": ids,
        "model_version": st.sampled_from(["active", "small-1", "no"]) | anything,
    },
)


def as_json(value: Any) -> bytes:
    """Python's own JSON, which writes NaN and Infinity where a lenient client would."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """JSON with a few bytes replaced."""
    body = bytearray(as_json(draw(fields)))
    for _ in range(draw(st.integers(1, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


bodies = (
    fields.map(as_json)
    | st.dictionaries(names | st.text(max_size=8), anything, max_size=5).map(as_json)
    | damaged()
    | st.binary(max_size=64)
)


@given(body=bodies)
@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_body_is_ever_a_500(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/score", content=body)
    if answer.status_code == 200:
        scores = orjson.loads(answer.content)["scores"]  # refuses NaN
        assert all(score is None or 0 <= score <= 1 for score in scores)
    else:
        assert 400 <= answer.status_code < 500, answer.text
        assert_problem(answer)


def raw(service: Service, sent: bytes) -> bytes:
    """Everything the service answers until it closes the connection."""
    with socket.create_connection((service.host, service.port), timeout=10) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough
            connection.sendall(sent)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


HEAD = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def test_an_announced_body_over_the_limit_is_not_waited_for(service: Service) -> None:
    answer = raw(service, HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"limit_bytes":1048576' in answer


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(service: Service) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = raw(service, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_of_exactly_the_limit_is_read(client: httpx.Client) -> None:
    body = b"{%s}" % GOOD
    at_limit, over = body.ljust(1_048_576), body.ljust(1_048_577)
    assert client.post("/v1/score", content=at_limit).status_code == 200
    assert client.post("/v1/score", content=over).status_code == 413


def test_what_is_not_http_harms_nobody(service: Service, client: httpx.Client) -> None:
    assert raw(service, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert client.get("/livez").status_code == 200


def test_a_client_that_leaves_mid_body_harms_nobody(service: Service, client: httpx.Client) -> None:
    with socket.create_connection((service.host, service.port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")
    assert client.get("/livez").status_code == 200
    assert b"unexpected error" not in service.log.read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        b'{"k":"' + rb"\n" * 400_000 + b"a" * 12,
        b"{" + b"\n" * 1_000_000 + b"     x",
        b'{"k":"' + b"\x01" * 1_000_000,
    ],
    ids=["escapes", "lines", "control characters"],
)
@pytest.mark.timeout(60)
def test_a_long_run_before_a_fault_does_not_hold_up_everybody(
    client: httpx.Client, body: bytes
) -> None:
    answer = client.post("/v1/score", content=body)
    assert answer.status_code == 400, answer.text
