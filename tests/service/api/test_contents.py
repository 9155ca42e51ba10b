"""What costs more than any valid body is refused by counting, before anything is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contract import MAX_ID
from service.api import score_reader
from service.api.body import Contents, TextContents, parse, parse_object
from service.api.id_kind import IdKind, MappedIds, NumericIds
from service.api.inline_request import InlineRequest
from service.api.item_text import ItemTexts
from service.api.oip.id_tensors import IdTensors
from service.api.oip.message import TextInferRequest
from service.api.oip.request_cache import RequestCache
from service.api.oip.text_inputs import TextInputs
from service.api.score_models import mapped_score_request, score_request
from service.api.score_reader import ScoreReader, contents_of_score
from service.errors import InvalidField, Malformed, ServiceError
from service.settings import Settings
from tests.service.small_schema import SMALL

MOST = 5000  # candidates
SCORE = contents_of_score(MOST, 2)
TEXTS = contents_of_score(MOST, 2, TextContents)
EVENTS = Contents.of(1000 * 68, 146_004, lists=2002)  # as ``Events.contents`` has them
MODEL = score_request(MOST)
MAPPED = mapped_score_request(MOST)
NO_IDS: Any = None  # nothing comes as far as the ids


class OfImages(ItemTexts):
    """As with an encoder whose map takes a picture's vector."""

    is_on = True  # type: ignore[assignment]

    def _most_numbers(self) -> int:
        return 512


def reader(ids: IdKind) -> ScoreReader:
    texts = OfImages(None, SMALL, Settings())
    return ScoreReader(MOST, SMALL.stored_item, ids, texts)


LITTLE_S = 0.03  # of processor: parsing and telling of faults took 35 to 139 ms
LARGE = 500_000
BEGUN = b'{"user_id":1,"candidates":['

HOSTILE: dict[str, bytes] = {
    "breaks off": BEGUN + b"1," * LARGE,
    "too many candidates": BEGUN + b"1," * LARGE + b"1]}",
    "too long a history": b'{"user_id":1,"candidates":[1],"history":[' + b"1," * LARGE + b"1]}",
    "too long a context": b'{"user_id":1,"candidates":[1],"context":{"a":['
    + b"1," * LARGE
    + b"1]}}",
    "lists": BEGUN + b"[]," * (LARGE // 2) + b"[]]}",
    "objects": BEGUN + b"{}," * (LARGE // 2) + b"{}]}",
    "line breaks": b"\n" * 2 * LARGE,
    "line breaks before a fault": b"\n" * 2 * LARGE + b"{x",
    "line breaks within": BEGUN + b"\n" * 2 * LARGE + b"x",
    "a name many times": b'{"user_id":1%s}' % (b',"candidates":[%s1]' % (b"1," * MOST) * 90),
    "quotation marks": b'"' * 2 * LARGE,
    "long numbers": BEGUN + (b"1" * 4000 + b",") * 250 + b"1]}",
    "a long number": BEGUN + b"1" * 2 * LARGE + b"]}",
    "an escaped name": b'{"user_id":1,"candidates":[1],"' + b"\\u0041" * 170_000 + b'":1}',
    "nested lists": b'{"user_id":1,"candidates":[1],"features":{"hour":['
    + b",".join([b"[" * 150 + b"]" * 150] * 3000)
    + b"]}}",
    "nested lists, as many as there may be numbers": b'{"events":['
    + b",".join([b"[" * 150 + b"]" * 150] * 700)
    + b"]}",
    "nested objects": b'{"events":[' + b",".join([b'{"":' * 150 + b"1" + b"}" * 150] * 480) + b"]}",
    "empty objects": b'{"events":[' + b"{}," * 200_000 + b"{}]}",
    "depth": b'{"user_id":1,"candidates":' + b"[" * LARGE,
    "strings": BEGUN + b'"",' * (LARGE // 2) + b'""]}',
    "escaped quotes": b'{"user_id":"' + b'\\"' * LARGE,
    "commas in a string": b'{"user_id":"' + b"," * 2 * LARGE + b'"}',
    "digits in a string": b'{"user_id":"' + b"7" * 2 * LARGE + b'"}',
    "backslashes": b'{"user_id":1,"candidates":["' + b"\\\\" * LARGE,
}
READ = {
    "long numbers",
    "an escaped name",
    "digits in a string",
}  # JSON with no more in it than a batch of events may have
TENSORS = IdTensors("BYTES", TextContents, TextInferRequest, partial(TextInputs.of, NO_IDS))
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "score": lambda body: parse(MODEL, body, SCORE),
    "texts": lambda body: parse(MAPPED, body, TEXTS),
    "infer": RequestCache(MOST, 2).read,
    "text tensors": RequestCache(MOST, 2, TENSORS).read,
    "events": lambda body: parse_object(body, EVENTS),
    "inline": reader(NumericIds(MOST)).read,
}
# What an inline candidate may have is counted as well.
INLINE = BEGUN + b'{"text":{"de":"x"}}'
OF_INLINE: dict[str, bytes] = {
    "breaks off": INLINE + b",1" * LARGE,
    "too many candidates": INLINE + b",1" * LARGE + b"]}",
    "too many inline": INLINE + b',{"text":{"de":"x"}}' * 2500 + b"]}",
    "numbers": BEGUN + b'{"vectors":{"image":[' + b"0.5," * 250_000 + b"1]}}]}",
    "nulls and a string": BEGUN + b'{"features":{"content":["",' + b"null," * 200_000 + b"1]}}]}",
    "nested lists": BEGUN
    + b'{"features":{"content":['
    + b",".join([b"[" * 150 + b"]" * 150] * 70)
    + b"]}}]}",
    "a name many times": BEGUN + b'{"text":1,"text":[' + b"1," * LARGE + b"1]}]}",
    "names": BEGUN + b"{%s}]}" % b",".join(b'"n%d":1' % i for i in range(5500)),
    "names of the request": INLINE + b"],%s}" % b",".join(b'"n%d":1' % i for i in range(5500)),
    "objects elsewhere": b'{"user_id":1,"candidates":[1],"history":[{}' + b",1" * LARGE + b"]}",
}
LITTLE_OF_INLINE_S = 0.012  # 103 ms, of those that were refused by their number of ids


@pytest.mark.parametrize("name", OF_INLINE)
def test_inline_candidates_are_counted_before_they_are_parsed(name: str) -> None:
    taken = []
    for _ in range(3):
        began = thread_time()
        with pytest.raises(ServiceError) as refused:
            PARSERS["inline"](OF_INLINE[name])
        taken.append(thread_time() - began)
        assert refused.value.status in (400, 422)
    assert min(taken) < LITTLE_OF_INLINE_S
    assert len(refused.value.detail) < 400


def test_a_body_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[str]()

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(score_reader, name)

        def read(*arguments: Any) -> Any:
            parsed.append(name)
            return real(*arguments)

        return read

    for name in ("parse", "read_object"):
        monkeypatch.setattr(score_reader, name, noted(name))
    wrong = b'{"user_id":1,"context":{"a":[1]},"candidates":[1,1.5]}'
    with pytest.raises(InvalidField, match=r"candidates\.1"):
        PARSERS["inline"](wrong)
    with pytest.raises(InvalidField, match=r"candidates\.1"):
        PARSERS["inline"](wrong.replace(b"[1,", b"[ \n{},"))
    assert parsed == ["parse", "read_object"]


def lists(inner: Any) -> Any:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text("a{[", max_size=2), inner)


@given(st.recursive(st.none() | st.integers(0, 9) | st.text('[{,:}"\\ ', max_size=6), lists))
def test_a_list_that_holds_an_object_is_seen(value: Any) -> None:
    for written in (json.dumps(value), json.dumps(value, indent=1)):
        body = b'{"a":' + written.encode() + b"}"
        assert score_reader._may_hold_inline(body) or not holds_object(value)


def holds_object(value: Any) -> bool:
    """Whether a list in it holds an object."""
    if isinstance(value, dict):
        return any(map(holds_object, value.values()))
    if not isinstance(value, list):
        return False
    return any(isinstance(each, dict) or holds_object(each) for each in value)


@pytest.mark.parametrize("ids", [NumericIds(MOST), MappedIds(MOST, NO_IDS, NO_IDS, NO_IDS)])
def test_ids_that_look_like_objects_are_read(ids: IdKind) -> None:
    text = "7" if ids.kind == "numeric" else "[{"
    body = {"user_id": text, "candidates": [text] * 20, "model_version": "[{"}
    found = reader(ids).read(json.dumps(body).encode())
    assert not isinstance(found, InlineRequest)
    assert found == parse(ids.request, json.dumps(body).encode(), SCORE, ids.request_with_text)


@pytest.mark.parametrize("route", PARSERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_refused_and_costs_little(name: str, route: str) -> None:
    if route == "events" and name in READ:
        return
    taken = []
    for _ in range(3):  # the least of them: a page fault may cost more than a refusal
        began = thread_time()
        with pytest.raises(ServiceError) as refused:
            PARSERS[route](HOSTILE[name])
        taken.append(thread_time() - began)
        assert refused.value.status in (400, 422)
    assert min(taken) < LITTLE_S
    assert refused.value.faults
    assert len(refused.value.detail) < 400


def written(indent: int | None = None) -> list[bytes]:
    """The largest valid requests there are, as several clients would write them."""
    largest = {
        "user_id": MAX_ID,
        "candidates": [MAX_ID] * MOST,
        "context": {name: [2**31 - 1] * MOST for name in ("likes_level", "views_level")},
        "history": [MAX_ID] * 2048,
        "top_k": MAX_ID,
        "explain": 100,
        "model_version": "v" * 64,
    }
    text = json.dumps(largest, indent=indent)
    return [text.encode(), text.replace("\n", "\r\n\t").encode(), b"\n" * LARGE + text.encode()]


@pytest.mark.parametrize("indent", [None, 0, 1, 8, 40])
def test_nothing_valid_is_refused_however_it_is_written(indent: int | None) -> None:
    for body in written(indent):
        assert len(parse(MODEL, body, SCORE).candidates) == MOST


@pytest.mark.parametrize("characters", ["a", "é🎬", '"', '\\",:[{7', "\x00"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_valid_text_is_refused_for_what_it_holds(characters: str, ascii_only: bool) -> None:
    text = (characters * 128)[:128]
    body = {
        "user_id": text,
        "candidates": [text] * MOST,
        "context": {name: [2**31 - 1] * MOST for name in ("likes_level", "views_level")},
        "history": [text] * 2048,
        "model_version": "v" * 64,
    }
    for indent in (None, 8):
        written = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode()
        assert len(parse(MAPPED, written, TEXTS).candidates) == MOST


@pytest.mark.parametrize("bounds", [Contents, TextContents])
def test_brackets_in_strings_are_no_lists_or_objects(bounds: type[Contents]) -> None:
    keys = [']]}"]]' * 20, '\\\\"]]}' * 20] * 1000
    events = [{"user_id": "7", "item_ids": ["1"], "key": key} for key in keys]
    body: dict[str, Any] = {"events": events}
    contents = bounds.of(10_000, 200_000, lists=4002)
    assert parse_object(json.dumps(body).encode(), contents) == body
    body["more"] = []  # one too many
    with pytest.raises(InvalidField, match="more lists and objects"):
        parse_object(json.dumps(body).encode(), contents)


def test_the_place_of_a_fault_is_named() -> None:
    with pytest.raises(Malformed) as refused:
        parse(MODEL, b"\n\n" + BEGUN + b"1,\n" * 4000 + b"x", SCORE)
    assert refused.value.faults[0].field == "body"
    assert "at line 4003 column 1" in refused.value.detail
    with pytest.raises(InvalidField) as invalid:
        parse(MODEL, BEGUN + b"1," * MOST + b"1]}", SCORE)
    assert invalid.value.faults[0].field == "candidates"
