"""An answer's JSON is kept where it comes again, and is what it would be without that."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from service.api.oip import infer, outputs
from service.api.oip.message import LENGTH_HEADER
from service.api.oip.outputs import DATATYPES, OutputSpec, response
from service.scoring.result import ScoreResult
from tests.service.answers import answer as answer_of
from tests.service.api.oip.raw import INFER, body, listed
from tests.service.in_process import client_of, metric, opened
from tests.service.world import World

BLOBS = tuple(OutputSpec(name, binary=True) for name in DATATYPES)


def answer(scores: list[float], *, cold: bool = False) -> ScoreResult:
    return answer_of(scores, cold=[cold] * len(scores), history=3)


def parts(
    one: ScoreResult, wanted: tuple[OutputSpec, ...] = BLOBS, **more: str
) -> tuple[dict[str, Any], bytes]:
    """JSON and blobs."""
    members = {"model_name": "qin", "model_version": "v1", **more}
    content, headers = response(one, wanted, members, ())
    size = int(dict(headers).get(LENGTH_HEADER.lower().encode(), len(content)))
    return orjson.loads(content[:size]), content[size:]


def test_the_same_json_goes_with_other_scores() -> None:
    outputs._all_blobs.cache_clear()
    first, second = (parts(answer(scores)) for scores in ([0.1, 0.2], [0.3, 0.4]))
    assert first[0] == second[0]
    assert second[1] == np.array([0.3, 0.4], "<f4").tobytes() + b"\1\1"
    assert outputs._all_blobs.cache_info().hits == 1


@pytest.mark.parametrize(
    "unlike",
    [
        lambda: parts(answer([0.1, 0.2]), id="mine"),
        lambda: parts(answer([0.1, 0.2], cold=True)),
        lambda: parts(answer([0.1, 0.2, 0.3])),
        lambda: parts(answer([0.1, 0.2]), BLOBS[:1]),
        lambda: parts(answer([0.1, 0.2]), BLOBS[::-1]),
        lambda: parts(answer([0.1, 0.2]), model_version="v2"),
        lambda: parts(answer([0.1, 0.2]), (BLOBS[0], OutputSpec("known", binary=False))),
    ],
    ids=["id", "a note", "count", "fewer", "order", "version", "json"],
)
def test_whatever_is_different_says_so_and_leaves_the_usual_as_it_was(unlike: Any) -> None:
    usual = parts(answer([0.1, 0.2]))
    assert unlike()[0] != usual[0]
    assert parts(answer([0.1, 0.2])) == usual


def test_what_is_kept_is_what_is_made_of_the_same_output_without_keeping() -> None:
    kept, _ = parts(answer([0.1, 0.2]))
    before = outputs._all_blobs.cache_info().currsize
    made, _ = parts(answer([0.1, 0.2]), (BLOBS[0], OutputSpec("known", binary=False)))
    assert outputs._all_blobs.cache_info().currsize == before  # values do not come again
    assert made["outputs"][0] == kept["outputs"][0]
    assert made["outputs"][1].pop("data") == [True, True]
    del kept["outputs"][1]["parameters"]
    assert made["outputs"][1] == kept["outputs"][1]


def test_a_history_that_is_not_to_be_had_is_told_where_every_item_was_there() -> None:
    lost = answer_of([0.1, 0.2], history_lost=True)
    assert lost.complete
    assert parts(lost)[0]["parameters"] == {"degraded": "history"}


async def test_an_answer_that_cannot_be_written_is_not_counted_as_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("not to be written")

    monkeypatch.setattr(infer, "response", broken)
    content = body(listed("user_id", [1]), listed("item_id", [int(world.ids[0])]))
    async with opened(world) as state, client_of(state) as client:
        failed = await client.post(INFER, content=content)
        assert failed.status_code == 500
        assert metric(state, "qin_items_total", kind="scored") == 0
        monkeypatch.undo()
        assert (await client.post(INFER, content=content)).status_code == 200
        assert metric(state, "qin_items_total", kind="scored") == 1
