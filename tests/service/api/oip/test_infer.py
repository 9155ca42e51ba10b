"""Inference by the real ``tritonclient``: in every mix of JSON and blobs the bits of /v1/score."""

from __future__ import annotations

from itertools import product

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.service.api.oip.triton import MODEL, Asked, output, same_bits, tensor
from tests.service.process import Service
from tests.service.world import World

UNKNOWN = 5_000_000
NOBODY = 10**12
INPUTS = ("user_id", "item_id", "history", "likes_level")
COMPRESSIONS = (None, "gzip", "deflate")


@pytest.fixture
def asked(world: World) -> Asked:
    """Everything that may be asked."""
    candidates = np.append(world.ids[:40], [UNKNOWN, world.ids[3]])
    levels = np.arange(len(candidates)) % 11
    return Asked(3, candidates, history=world.ids[50:57], context={"likes_level": levels})


@pytest.mark.parametrize("binary", list(product([True, False], repeat=len(INPUTS))))
def test_inputs_in_every_mix_of_json_and_blobs_get_the_bits_of_v1(
    tritonclient: triton.InferenceServerClient,
    client: httpx.Client,
    asked: Asked,
    binary: tuple[bool, ...],
) -> None:
    blobs = {name for name, chosen in zip(INPUTS, binary, strict=True) if chosen}
    answer = tritonclient.infer(MODEL, asked.inputs(binary=blobs))
    same_bits(answer.as_numpy("score"), asked.scores(client))
    assert answer.as_numpy("known").tolist() == [i != UNKNOWN for i in asked.candidates.tolist()]


@pytest.mark.parametrize("score", [True, False, None])
@pytest.mark.parametrize("known", [True, False, None])
def test_outputs_in_every_mix_of_json_and_blobs_are_those_asked_for_in_their_order(
    tritonclient: triton.InferenceServerClient,
    client: httpx.Client,
    asked: Asked,
    score: bool | None,
    known: bool | None,
) -> None:
    chosen = {"known": known, "score": score}
    outputs = [output(n, binary=how) for n, how in chosen.items() if how is not None]
    answer = tritonclient.infer(MODEL, asked.inputs(), outputs=outputs or None)
    names = [o["name"] for o in answer.get_response()["outputs"]]
    assert names == ([o.name() for o in outputs] or ["score", "known"])
    if "score" in names:
        same_bits(answer.as_numpy("score"), asked.scores(client))
    if "known" in names:
        assert answer.as_numpy("known").dtype == np.bool_
        assert answer.as_numpy("known").sum() == len(asked.candidates) - 1


@pytest.mark.parametrize("there", COMPRESSIONS)
@pytest.mark.parametrize("back", COMPRESSIONS)
@pytest.mark.parametrize("binary", [True, False])
async def test_the_asyncio_client_gets_the_same_in_every_compression(
    service: Service,
    client: httpx.Client,
    asked: Asked,
    there: str | None,
    back: str | None,
    binary: bool,
) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{service.port}") as asynchronous:
        answer = await asynchronous.infer(
            MODEL,
            asked.inputs(binary=None if binary else set()),
            outputs=[output("score", binary=binary)],
            request_compression_algorithm=there,
            response_compression_algorithm=back,
        )
    same_bits(answer.as_numpy("score"), asked.scores(client))


@pytest.mark.parametrize("there", COMPRESSIONS)
@pytest.mark.parametrize("back", COMPRESSIONS)
def test_compression_by_the_client_that_blocks(
    tritonclient: triton.InferenceServerClient,
    client: httpx.Client,
    asked: Asked,
    there: str | None,
    back: str | None,
) -> None:
    answer = tritonclient.infer(
        MODEL,
        asked.inputs(),
        request_compression_algorithm=there,
        response_compression_algorithm=back,
    )
    same_bits(answer.as_numpy("score"), asked.scores(client))


def test_the_model_the_version_and_the_id_are_told(
    tritonclient: triton.InferenceServerClient, asked: Asked
) -> None:
    answer = tritonclient.infer(MODEL, asked.inputs(), request_id="mine-7").get_response()
    assert (answer["model_name"], answer["model_version"]) == (MODEL, "small-1")
    assert answer["id"] == "mine-7"
    assert "id" not in tritonclient.infer(MODEL, asked.inputs()).get_response()


@pytest.mark.parametrize("version", ["small-1", "active"])
def test_a_loaded_version_may_be_asked_for(
    tritonclient: triton.InferenceServerClient, asked: Asked, version: str
) -> None:
    answer = tritonclient.infer(MODEL, asked.inputs(), model_version=version)
    assert answer.get_response()["model_version"] == "small-1"


def test_what_was_not_ordinary_is_counted_in_the_parameters(
    tritonclient: triton.InferenceServerClient, world: World
) -> None:
    cold = sorted(world.cold_ids)[0]
    asked = Asked(NOBODY, np.array([UNKNOWN, cold, UNKNOWN]))
    answer = tritonclient.infer(MODEL, asked.inputs(), parameters={"mine": 1})
    assert answer.as_numpy("score")[[0, 2]].tolist() == [0.0, 0.0]
    assert answer.as_numpy("known").tolist() == [False, True, False]
    notes = answer.get_response()["parameters"]
    assert notes == {"cold_user": True, "unknown_items": 2, "cold_items": 1, "ignored": "mine"}


def test_an_ordinary_answer_has_no_parameters(
    tritonclient: triton.InferenceServerClient, world: World
) -> None:
    warm = np.array([i for i in world.ids.tolist() if i not in world.cold_ids][:5])
    answer = tritonclient.infer(MODEL, Asked(3, warm).inputs())
    assert "parameters" not in answer.get_response()


def test_the_largest_list_and_the_largest_ids(
    tritonclient: triton.InferenceServerClient, client: httpx.Client, world: World
) -> None:
    asked = Asked(2**63 - 1, np.append(np.resize(world.ids, 4999), 2**63 - 1))
    answer = tritonclient.infer(MODEL, asked.inputs())
    same_bits(answer.as_numpy("score"), asked.scores(client))


def test_an_empty_history_is_one(
    tritonclient: triton.InferenceServerClient, client: httpx.Client, world: World
) -> None:
    asked = Asked(3, world.ids[:9], history=world.ids[:0])
    for binary in (None, set[str]()):
        answer = tritonclient.infer(MODEL, asked.inputs(binary=binary))
        same_bits(answer.as_numpy("score"), asked.scores(client))


def test_past_its_timeout_an_answer_is_a_504(
    tritonclient: triton.InferenceServerClient, world: World
) -> None:
    asked = Asked(3, np.resize(world.ids, 5000))
    with pytest.raises(InferenceServerException) as refusal:
        tritonclient.infer(MODEL, asked.inputs(), timeout=1)
    assert refusal.value.status() == "504"
    for enough in (0, 9_000_000, 2**63 - 1):
        tritonclient.infer(MODEL, asked.inputs(), timeout=enough)


@pytest.mark.parametrize(
    ("model", "version"), [("bert", ""), ("bert", "small-1"), (MODEL, "small-2"), (MODEL, "v" * 99)]
)
def test_another_model_or_version_is_a_404(
    tritonclient: triton.InferenceServerClient, asked: Asked, model: str, version: str
) -> None:
    with pytest.raises(InferenceServerException) as refusal:
        tritonclient.infer(model, asked.inputs(), model_version=version)
    assert refusal.value.status() == "404"


def test_a_version_of_whatever_length_is_a_version(
    tritonclient: triton.InferenceServerClient, asked: Asked
) -> None:
    """Though the routes that are kept at hand are short ones."""
    for length in (65, 300):
        with pytest.raises(InferenceServerException, match=f"a name of {length} letters"):
            tritonclient.infer(MODEL, asked.inputs(), model_version="v" * length)


def test_a_sequence_is_refused(tritonclient: triton.InferenceServerClient, asked: Asked) -> None:
    with pytest.raises(InferenceServerException, match="no sequences"):
        tritonclient.infer(MODEL, asked.inputs(), sequence_id=7, sequence_start=True)


def test_what_is_not_here_is_refused(
    tritonclient: triton.InferenceServerClient, asked: Asked
) -> None:
    shared = tensor("item_id", asked.candidates, binary=True)
    shared.set_shared_memory("region", 336)
    with pytest.raises(InferenceServerException, match="shared memory"):
        tritonclient.infer(MODEL, [*asked.inputs()[:1], shared])
    classes = triton.InferRequestedOutput("score", class_count=3)
    with pytest.raises(InferenceServerException, match="classification"):
        tritonclient.infer(MODEL, asked.inputs(), outputs=[classes])
    with pytest.raises(InferenceServerException, match="no such output; there: score, known"):
        tritonclient.infer(MODEL, asked.inputs(), outputs=[output("logits", binary=True)])
    with pytest.raises(InferenceServerException) as refusal:
        tritonclient.get_system_shared_memory_status()
    assert refusal.value.status() == "404"
