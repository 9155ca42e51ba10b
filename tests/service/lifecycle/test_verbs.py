"""What may be done with versions, each verb twice, while they answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import httpx
import numpy as np
import pytest

from service.models.canary import Canary, seed_of
from tests.service.lifecycle.conftest import Swapping
from tests.service.lifecycle.hostile import copied
from tests.service.parity import TOLERANCE


def test_a_version_is_loaded_beside_the_other_and_then_switched_to(swapping: Swapping) -> None:
    switches = 'qin_model_swaps_total{kind="activate"}'
    before = swapping.metric(switches)
    assert swapping.state("small-2") == "unloaded"
    assert swapping.score(model_version="small-2").status_code == 404
    for _ in range(2):
        assert swapping.tell("small-2/load").json()["state"] == "ready"
    swapping.serves("small-1")
    swapping.serves("small-2", model_version="small-2")
    for _ in range(2):
        told = swapping.tell("small-2/activate").json()
        assert (told["state"], told["active"], told["previous"]) == ("active", "small-2", "small-1")
    swapping.serves("small-2")
    swapping.serves("small-1", model_version="previous")
    swapping.serves("small-2", model_version="active")
    assert swapping.metric(switches) == before + 1


def test_a_rollback_is_immediate_and_repeating_it_changes_nothing(swapping: Swapping) -> None:
    swapping.tell("small-2/activate")
    loads = 'qin_model_loads_total{outcome="ready"}'
    before = swapping.metric(loads)
    assert swapping.tell("rollback").json()["active"] == "small-1"
    assert swapping.metric(loads) == before > 0  # how long it takes, the load test measures
    assert swapping.tell("rollback").json()["active"] == "small-1"
    swapping.serves("small-1")
    assert swapping.score(model_version="previous").status_code == 404


def test_a_rollback_to_a_version_no_longer_in_memory_loads_it(swapping: Swapping) -> None:
    swapping.tell("small-2/activate")
    assert swapping.tell("previous/unload").json()["version"] == "small-1"
    assert swapping.state("small-1") == "unloaded"
    assert swapping.tell("rollback").json()["active"] == "small-1"
    swapping.serves("small-1")


def test_an_unloaded_version_leaves_nothing_that_holds_it(swapping: Swapping) -> None:
    swapping.tell("small-2/load")
    swapping.serves("small-2", model_version="small-2")
    for _ in range(2):
        assert swapping.tell("small-2/unload").json()["state"] == "unloaded"
    said = swapping.service.log.read_text()
    assert '"event":"unloaded"' in said
    assert "its memory is still referenced" not in said
    gone = swapping.score(model_version="small-2")
    assert gone.status_code == 404
    assert gone.json()["loaded"] == ["small-1"]


def test_what_cannot_be_done_now_says_what_to_do_first(swapping: Swapping) -> None:
    refused = swapping.tell("small-1/unload")
    assert refused.status_code == 409
    assert "activate another one first" in refused.json()["detail"]
    assert swapping.tell("promote").status_code == 409
    assert swapping.tell("small-1/canary", share=0.5).status_code == 409
    assert swapping.tell("small-2/canary", share=1.5).status_code == 422
    assert swapping.tell("small-2/canary", share=0.5, source="/etc").status_code == 422


@pytest.mark.parametrize("verb", ["canary", "shadow"])
@pytest.mark.parametrize(
    "body", [b'{"share": true}', b'{"share": "1"}', b'{"share": 0.1, "share": 1}']
)
def test_a_share_is_one_number_and_nothing_else(swapping: Swapping, verb: str, body: bytes) -> None:
    refused = swapping.admin.post(f"/admin/models/small-2/{verb}", content=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["field"] == "share"
    assert swapping.admin.get("/admin/models").json()[verb] is None


def test_a_canary_answers_the_same_users_always(swapping: Swapping) -> None:
    assert swapping.tell("small-2/canary", share=0.3).json()["canary"]["share"] == 0.3
    canary = Canary(None, 0.3, seed_of("small-2"))  # type: ignore[arg-type]
    users = [*swapping.world.users, *range(10**6, 10**6 + 100)]
    answers = 'qin_version_duration_seconds_count{outcome="ok",role="canary"}'
    before = swapping.metric(answers)
    for _ in range(2):
        for user in users:
            version = "small-2" if canary.takes(user) else "small-1"
            assert swapping.score(user).json()["model_version"] == version
    chosen = next(user for user in swapping.world.users if canary.takes(user))
    swapping.serves("small-2", chosen)
    assert swapping.metric("qin_canary_share") == 0.3
    assert swapping.metric(answers) > before
    for _ in range(2):
        assert swapping.tell("promote").json()["active"] == "small-2"
    assert swapping.admin.get("/admin/models").json()["canary"] is None
    swapping.serves("small-2")


def test_a_canary_of_no_share_is_none(swapping: Swapping) -> None:
    swapping.tell("small-2/canary", share=1)
    swapping.serves("small-2")
    for _ in range(2):
        assert swapping.tell("small-2/canary", share=0).json()["canary"] is None
    swapping.serves("small-1")
    swapping.serves("small-2", model_version="small-2")


def test_a_canary_ends_with_its_version(swapping: Swapping) -> None:
    swapping.tell("small-2/canary", share=0.5)
    assert swapping.metric("qin_canary_share") == 0.5
    assert swapping.tell("small-2/unload").json()["canary"] is None
    assert swapping.metric("qin_canary_share") == 0


def test_a_shadow_answers_nobody_and_its_differences_are_kept(swapping: Swapping) -> None:
    swapping.tell("small-2/shadow", share=1)
    scored = 'qin_shadow_requests_total{outcome="scored"}'
    before = swapping.metric(scored)
    users = list(swapping.world.users)[:12]
    for number, user in enumerate(users, 1):
        swapping.serves("small-1", user)
        deadline = time.monotonic() + 60
        while (seen := shadow(swapping))["requests"] < number:  # its queue is short
            assert time.monotonic() < deadline
            time.sleep(0.005)
    candidates = swapping.world.ids[:20]
    apart = np.concatenate(
        [
            np.abs(
                swapping.answer("small-1", user, candidates)
                - swapping.answer("small-2", user, candidates)
            )
            for user in users
        ]
    )
    assert seen["version"] == "small-2"
    assert seen["requests"] == len(users)
    assert seen["mean_abs_delta_p"] == pytest.approx(apart.mean(), abs=TOLERANCE)
    assert seen["worst_abs_delta_p"] == pytest.approx(apart.max(), abs=TOLERANCE)
    assert -1 <= seen["kendall_tau"] <= 1
    assert swapping.metric(scored) == before + len(users)
    for _ in range(2):
        assert swapping.tell("small-2/shadow", share=0).json()["shadow"] is None


def shadow(swapping: Swapping) -> dict[str, Any]:
    seen: dict[str, Any] = swapping.admin.get("/admin/models").json()["shadow"]
    return seen


def test_a_shadow_of_the_same_weights_differs_in_nothing(swapping: Swapping) -> None:
    copied(swapping.world.models / "small-1", "twin")
    swapping.tell("twin/shadow", share=1)
    seen = {"requests": 0}
    deadline = time.monotonic() + 60
    while not seen["requests"] and time.monotonic() < deadline:
        swapping.serves("small-1")
        seen = shadow(swapping)
    assert seen["worst_abs_delta_p"] == 0
    assert seen["kendall_tau"] == 1


def test_under_traffic_every_answer_is_of_the_version_it_names(swapping: Swapping) -> None:
    """Lists of 400 are cut into chunks, and versions change between and beneath them."""
    ids = swapping.world.ids
    expected = {name: swapping.answer(name, 5, ids) for name in swapping.networks}
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=swapping.service.url, timeout=30, trust_env=False) as client:
            while not over.is_set():
                body = {"user_id": 5, "candidates": ids.tolist()}
                answer = client.post("/v1/score", json=body)
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    continue
                name = answer.json()["model_version"]
                seen[name] += 1
                if answer.headers["X-Model-Version"] != name:
                    wrong.append(f"{name} in the body, another in the header")
                if np.abs(np.array(answer.json()["scores"]) - expected[name]).max() > TOLERANCE:
                    wrong.append(f"scores that are not {name}'s")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for swap in range(12):
        name = f"small-{2 - swap % 2}"
        assert swapping.tell(f"{name}/activate").status_code == 200
        other = f"small-{1 + swap % 2}"
        if swap % 4 == 0:  # and once in a while from the disk
            assert swapping.tell(f"{other}/unload").status_code == 200
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(seen[name] for name in swapping.networks) > 0
    assert "its memory is still referenced" not in swapping.service.log.read_text()


def test_a_load_does_not_wait_for_its_client(swapping: Swapping) -> None:
    copied(swapping.world.models / "small-1", "new")  # to be inspected, which takes a while
    patience = httpx.Timeout(20, read=0.05)
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.Client(
            base_url=str(swapping.admin.base_url), timeout=patience, trust_env=False
        ) as hasty,
    ):
        hasty.post("/admin/models/new/load")
    deadline = time.monotonic() + 60
    while swapping.state("new") != "ready" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert swapping.score(model_version="new").json()["model_version"] == "new"
