"""Two versions, each with an encoder of its own, that are switched while requests are answered.

Each version names in its manifest the contents that it was trained with. An answer is *wrong* if it
is not, to the bit, what the version in its header gives; *mixed*, too, if one of its scores is what
that version's network gives with the other's encoder, or if it names another version than its
header. The former come from twins of the bundles that name each other's contents.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from feature_store import connect
from feature_store.contents import Contents, Origin
from feature_store.feature_values import item_row
from model_export.build import build
from model_export.bundle.manifest import ContentOrigin
from tests.service.content_encoder import FEATURE, content_encoder
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import SMALL_SIZES, World, make_world, random_published
from text.runtime.bundle import EncoderBundle
from text.runtime.encoder import TextEncoder

VERSIONS = {"model-a": "words-a", "model-b": "words-b"}
TAGS = {"item_tags": [3, 9], "likes_level": 2, "views_level": 1}
TEXTS = [{"de": f"das Haus {i}", "en": f"the house {i} of the tree"} for i in range(8)]
STORED = 2**41  # items with the same texts, by number
USER = 5
PATIENT_S = 300.0  # loads yield to all other work of a busy machine


@dataclass(frozen=True, slots=True)
class SwapWorld:
    """Where models and encoders lie, and the store."""

    world: World
    models: Path
    crossed: Path  # the same networks and versions, each with the other's contents
    encoders: Path

    def variables(self, workers: int = 1) -> dict[str, str]:
        return {
            "QIN_ENCODER": str(self.encoders),
            "QIN_MODEL_POLICY": "manual",
            "QIN_CONTENT_SHARE": "0",
            "QIN_DEADLINE_MS": PATIENCE_MS,
            "QIN_STORE_TIMEOUT_MS": PATIENCE_MS,
            "QIN_WORKERS": str(workers),
        }


def make_swap_world(folder: Path) -> SwapWorld:
    """Two networks of random weights for one schema, two maps for one encoder network."""
    world = make_world(folder)
    models, crossed, encoders = (folder / name for name in ("versions", "crossed", "encoders"))
    origins = []
    for seed, encoder in enumerate(VERSIONS.values(), start=1):
        made = content_encoder(folder / "made", encoder, seed)
        shutil.copytree(made, encoders / encoder)
        content = EncoderBundle.open(made).manifest.content
        assert content is not None
        origins.append(ContentOrigin(feature=FEATURE, digest=content.digest))
    for seed, version in enumerate(VERSIONS, start=1):
        network, _ = random_published(world.schema, SMALL_SIZES, 7 + seed, folder / f"plain-{seed}")
        build(network, models, version=version, content=origins[seed - 1])
        build(network, crossed, version=version, content=origins[-seed])
    return SwapWorld(world, models, crossed, encoders)


async def store_texts(swap: SwapWorld) -> None:
    """Put items of both encoders' contents under the numbers from ``STORED``."""
    store = await connect(swap.world.store, swap.world.schema)
    try:
        for encoder in VERSIONS.values():
            opened = TextEncoder.open(swap.encoders / encoder)
            digest = opened.content_digest
            assert digest is not None
            origin = Origin(FEATURE, digest)
            for number, text in enumerate(TEXTS):
                content = content_of(opened, text)
                row = item_row(swap.world.schema, {"item_id": 0, **TAGS, FEATURE: content.tolist()})
                item = STORED + number
                if encoder == next(iter(VERSIONS.values())):
                    contents = Contents.all_of(origin, 1, row.dtype)
                    await store.put_items(np.array([item]), row, contents)
                else:
                    await store.patch_item(item, _setting(content), origin)
    finally:
        await store.close()


def _setting(content: Any) -> Any:
    def change(row: Any) -> None:
        row[FEATURE] = content

    return change


def content_of(encoder: TextEncoder, text: dict[str, str]) -> Any:
    """(C,) with each text encoded alone, as the service does."""
    found = [encoder.encode([text[language]]).content for language in sorted(text)]
    return np.concatenate([each for each in found if each is not None]).mean(0)


def bodies() -> list[dict[str, Any]]:
    """Requests of inline candidates, of their stored twins, and of both."""
    inline = [{"name": f"n{i}", "text": text, "features": TAGS} for i, text in enumerate(TEXTS)]
    stored = [STORED + i for i in range(len(TEXTS))]
    return [
        {"user_id": USER, "candidates": inline[:1]},
        {"user_id": USER, "candidates": inline[2:5]},
        {"user_id": USER, "candidates": [inline[5], *stored[:3], inline[6]]},
        {"user_id": USER, "candidates": stored},
    ]


@dataclass(slots=True)
class Outcome:
    """Counts of a run."""

    answers: dict[str, int] = field(default_factory=dict)  # by version
    vectors: int = 0  # answers of /v1/embeddings
    switches: int = 0
    errors: int = 0
    wrong: int = 0
    mixed: int = 0
    said: list[str] = field(default_factory=list)  # of the first faults
    slowest_ms: float = 0.0
    switch_ms: list[float] = field(default_factory=list)

    def fault(self, what: str) -> None:
        if len(self.said) < 5:
            self.said.append(what)


def answer_of(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    """Ask until the worker that answers has loaded what ``body`` names."""
    until = time.monotonic() + PATIENT_S
    while (answer := client.post(path, json=body)).status_code == 404:
        assert time.monotonic() < until, answer.text
        time.sleep(0.1)
    return answer.raise_for_status().json()


class Answers:
    """What each version answers, known before the load begins."""

    def __init__(self, service: Service, swap: SwapWorld) -> None:
        self.bodies, self.texts = bodies(), [TEXTS[0]["de"], TEXTS[1]["en"]]
        self.vectors: dict[str, Any] = {}
        self.scores = self._scores(service)
        with service.client() as client:
            for encoder in VERSIONS.values():
                body = {"input": self.texts, "model": encoder}
                self.vectors[encoder] = answer_of(client, "/v1/embeddings", body)["data"]
        with serving(swap.crossed, swap.world.store, **swap.variables()) as other:
            self.crossed = self._scores(other)
        for version, found in self.scores.items():
            others = [*self.crossed.values(), *(s for v, s in self.scores.items() if v != version)]
            for number, scores in enumerate(found):
                assert not any(set(scores) & set(other[number]) for other in others)

    def _scores(self, service: Service) -> dict[str, list[list[float]]]:
        """Load every version; return its scores of each request."""
        scores = {}
        with service.client() as client:
            for version in VERSIONS:
                tell(service, f"{version}/load").raise_for_status()
                asked = [{**body, "model_version": version} for body in self.bodies]
                found = [answer_of(client, "/v1/score", body) for body in asked]
                scores[version] = [each["scores"] for each in found]
        return scores

    def check(self, number: int, answer: httpx.Response, outcome: Outcome) -> None:
        """Count one answer."""
        if answer.status_code != 200:
            outcome.errors += 1
            outcome.fault(f"{answer.status_code}: {answer.text[:200]}")
            return
        found, version = answer.json(), answer.headers["x-model-version"]
        outcome.answers[version] = outcome.answers.get(version, 0) + 1
        is_crossed = bool(set(found["scores"]) & set(self.crossed[version][number]))
        outcome.mixed += is_crossed or found["model_version"] != version
        if found["scores"] != self.scores[version][number]:
            outcome.wrong += 1
            outcome.fault(f"{version}, request {number}: {found['scores']}")

    def check_vectors(self, answer: httpx.Response, outcome: Outcome) -> None:
        if answer.status_code != 200:
            outcome.errors += 1
            outcome.fault(f"{answer.status_code}: {answer.text[:200]}")
            return
        outcome.vectors += 1
        encoder = answer.headers["x-model-version"]
        expected = self.vectors.get(encoder)
        if expected is None or not np.allclose(
            [each["embedding"] for each in answer.json()["data"]],
            [each["embedding"] for each in expected],
            atol=2e-6,
        ):
            outcome.wrong += 1
            outcome.fault(f"vectors of {encoder}")


@contextmanager
def load(service: Service, answers: Answers, outcome: Outcome, clients: int) -> Iterator[None]:
    """Ask from so many threads, each on a connection of its own, until the end of the block."""
    stop, lock = threading.Event(), threading.Lock()

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        with httpx.Client(base_url=service.url, timeout=PATIENT_S, trust_env=False) as client:
            while not stop.is_set():
                number = int(random.integers(0, len(answers.bodies) + 1))
                began = time.perf_counter()
                try:
                    if number == len(answers.bodies):
                        body = {"input": answers.texts}
                        answer = client.post("/v1/embeddings", json=body)
                    else:
                        answer = client.post("/v1/score", json=answers.bodies[number])
                except httpx.HTTPError as error:
                    with lock:
                        outcome.errors += 1
                        outcome.fault(repr(error))
                    continue
                took = 1e3 * (time.perf_counter() - began)
                with lock:
                    outcome.slowest_ms = max(outcome.slowest_ms, took)
                    if number == len(answers.bodies):
                        answers.check_vectors(answer, outcome)
                    else:
                        answers.check(number, answer, outcome)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def switch(service: Service, version: str, other: str, outcome: Outcome, *, unload: bool) -> None:
    """Activate a version and perhaps unload the other, so that its encoder goes and comes."""
    began = time.perf_counter()
    tell(service, f"{version}/activate").raise_for_status()
    outcome.switch_ms.append(round(1e3 * (time.perf_counter() - began), 1))
    outcome.switches += 1
    if unload:
        tell(service, f"{other}/unload").raise_for_status()


def tell(service: Service, command: str) -> httpx.Response:
    """Send a command of ``/admin/models``."""
    with service.admin() as admin:
        return admin.post(f"/admin/models/{command}", timeout=PATIENT_S)


def run(swap: SwapWorld, switches: int, pause_s: float, clients: int, workers: int = 1) -> Outcome:
    """Serve, ask, and switch so many times; every other time the old version is unloaded."""
    asyncio.run(store_texts(swap))
    outcome = Outcome()
    with serving(swap.models, swap.world.store, **swap.variables(workers)) as service:
        answers = Answers(service, swap)
        with load(service, answers, outcome, clients):
            switch_often(service, switches, pause_s, outcome)
    return outcome


def switch_often(service: Service, switches: int, pause_s: float, outcome: Outcome) -> None:
    """Activate one version after the other, beginning with the one that is not active."""
    with service.admin() as admin:
        active = admin.get("/admin/models").json()["active"]
    versions = sorted(VERSIONS, key=lambda version: version == active)
    for number in range(switches):
        time.sleep(pause_s)
        to, before = versions if number % 2 == 0 else versions[::-1]
        switch(service, to, before, outcome, unload=number % 2 == 1)
    time.sleep(pause_s)
