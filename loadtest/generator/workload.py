"""Draws and encodes HTTP requests before a run: the bank.

A schedule longer than the bank repeats it, so that memory does not depend on the length of a run.
Generators send prepared bytes and encode nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtest.generator.candidate_counts import CandidateCounts
from loadtest.generator.population import Population, PopulationError, Zipf, read_ids
from loadtest.generator.request_features import STRANGERS, read_features

if TYPE_CHECKING:
    from feature_store.options import IdKind

SCORE, EVENT = 0, 1
NOUNS = ("numbers", "texts")
PATHS = {SCORE: "/v1/score", EVENT: "/v1/events"}


@dataclass(frozen=True)
class Workload:
    """Distributions that requests are drawn from."""

    users: str = "1..10000"
    items: str = "1..10000"
    user_zipf: float = 0.9
    item_zipf: float = 0.9
    candidates: str = "64"
    events: float = 0.0  # share of requests that are clicks
    top_k: int | None = None
    inline_history: int = 0  # history items in the request; 0: the store's
    model_version: str | None = None
    distinct: int = 10_000  # prepared requests
    features: str | None = None  # source of request features: ``read_features``
    missing: float = 0.1  # with ``features``: share of each feature, and of users, left out
    headers: Mapping[str, str] = field(default_factory=dict)

    def documents(
        self, requests: int, seed: int, ids: IdKind | None = None
    ) -> list[tuple[int, dict[str, Any]]]:
        """Draw (kind, body) of ``min(requests, distinct)`` requests; ``ids``: the service's."""
        rng = np.random.default_rng([seed, 1])
        populations = {
            option: read_ids(getattr(self, option), option=option, column=column, ids=ids)
            for option, column in (("users", "user_id"), ("items", "item_id"))
        }
        as_texts = self._as_texts(populations, ids)
        users = Zipf.over(populations["users"], self.user_zipf, rng, as_texts=as_texts)
        items = Zipf.over(populations["items"], self.item_zipf, rng, as_texts=as_texts)
        count = max(1, min(requests, self.distinct))
        lengths = CandidateCounts(self.candidates).draw(rng, count)
        drawn = users.named(users.draw(rng, count))
        is_event = rng.random(count) < self.events
        documents = [
            (EVENT, self._event(user, items, rng))
            if event
            else (SCORE, self._score(user, int(length), items, rng))
            for user, length, event in zip(drawn, lengths, is_event, strict=True)
        ]
        if self.features is not None:
            bodies = [body for kind, body in documents if kind == SCORE]
            self._add_features(self.features, bodies, seed, as_texts)
        return documents

    def _add_features(
        self, source: str, bodies: list[dict[str, Any]], seed: int, as_texts: bool
    ) -> None:
        """Add request features, and let a share of the users be ones that the store does not know.

        Drawn apart: all else is as without them.
        """
        rng = np.random.default_rng([seed, 2])
        drawn = read_features(source).draw(rng, len(bodies), self.missing)
        strangers = rng.integers(*STRANGERS, len(bodies)).tolist()
        is_stranger = rng.random(len(bodies)) < self.missing
        for body, features, number, strange in zip(
            bodies, drawn, strangers, is_stranger, strict=True
        ):
            body["features"] = features
            if strange:
                body["user_id"] = f"unknown-{number}" if as_texts else number

    def _as_texts(self, populations: Mapping[str, Population], ids: IdKind | None) -> bool:
        """Whether ids are sent as texts: if the service's are, else if a population's are.

        Numbers of a range or a file are then their decimal texts. PopulationError for texts where
        numbers are wanted, and for a store of the other kind.
        """
        texts = {option: not isinstance(found, np.ndarray) for option, found in populations.items()}
        wanted = any(texts.values()) if ids is None else ids == "mapped"
        for option, is_text in texts.items():
            spec = getattr(self, option)
            if is_text != wanted and (is_text or "://" in spec):
                whose = "the service" if ids else "items" if option == "users" else "users"
                raise PopulationError(
                    f"{option}: the ids of {spec} are {NOUNS[is_text]}, "
                    f"those of {whose} are {NOUNS[wanted]}"
                )
        return wanted

    def _score(
        self, user: int | str, length: int, items: Zipf, rng: np.random.Generator
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "user_id": user,
            "candidates": items.named(items.draw_distinct(rng, length)),
        }
        if self.inline_history:
            body["history"] = items.named(items.draw(rng, self.inline_history))
        if self.top_k is not None:
            body["top_k"] = self.top_k
        if self.model_version is not None:
            body["model_version"] = self.model_version
        return body

    def _event(self, user: int | str, items: Zipf, rng: np.random.Generator) -> dict[str, Any]:
        return {"user_id": user, "item_id": items.named(items.draw(rng, 1))[0]}


@dataclass(frozen=True, slots=True)
class Destination:
    """Host, path prefix and headers of the requests of one kind."""

    authority: str
    prefix: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Bank:
    """Prepared requests. ``wire`` holds whole requests, header and body."""

    wire: list[bytes]
    kind: NDArray[np.uint8]  # (M,)
    body_at: NDArray[np.uint32]  # (M,) where the body starts in ``wire``

    @classmethod
    def encode(
        cls,
        documents: list[tuple[int, dict[str, Any]]],
        *,
        authority: str,
        prefix: str = "",
        stages: bool = False,
        headers: Mapping[str, str] | None = None,
        events: Destination | None = None,
    ) -> Bank:
        """Encode whole requests; ``events``: the destination of clicks, if it differs."""
        aim = Destination(authority, prefix, headers or {})
        extra = {"X-Server-Timing": "1"} if stages else {}
        heads = {
            kind: _head(events if kind == EVENT and events else aim, path, extra)
            for kind, path in PATHS.items()
        }
        wire, body_at = [], []
        for kind, document in documents:
            body = orjson.dumps(document)
            head = f"{heads[kind]}{len(body)}\r\n\r\n".encode("latin-1")
            wire.append(head + body)
            body_at.append(len(head))
        kinds = np.array([kind for kind, _ in documents], np.uint8)
        return cls(wire, kinds, np.array(body_at, np.uint32))

    def document(self, entry: int) -> Any:
        """Decode the body of a prepared request."""
        return orjson.loads(memoryview(self.wire[entry])[self.body_at[entry] :])

    def write(self, folder: Path) -> None:
        lengths = np.array([len(request) for request in self.wire], np.uint32)
        (folder / "bank").write_bytes(b"".join(self.wire))
        np.savez(folder / "bank.npz", lengths=lengths, kind=self.kind, body_at=self.body_at)

    @classmethod
    def read(cls, folder: Path) -> Bank:
        content = (folder / "bank").read_bytes()
        with np.load(folder / "bank.npz") as arrays:
            ends = np.cumsum(arrays["lengths"], dtype=np.int64).tolist()
            wire = [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            return cls(wire, arrays["kind"], arrays["body_at"])


def _head(aim: Destination, path: str, extra: Mapping[str, str]) -> str:
    """Encode the header up to the value of Content-Length."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**extra, **aim.headers}.items())
    return (
        f"POST {aim.prefix}{path} HTTP/1.1\r\nHost: {aim.authority}\r\n"
        f"Content-Type: application/json\r\n{lines}Content-Length: "
    )
