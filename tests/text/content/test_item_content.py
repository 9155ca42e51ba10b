"""An item's content is that of ``embed``, and its bits do not depend on what is encoded with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.text.content.conftest import IMAGE
from text.content.embed import contents_of
from text.content.items import ItemBatch, encode
from text.runtime.cache import VectorCache
from text.runtime.content import ContentMap
from text.runtime.encoder import Encoded, TextEncoder
from text.runtime.steps import EncodingSteps

TEXTS = ["the tree of the house", "das Haus mit dem Baum", "niño", "the tree", "under Haus " * 30]


@pytest.fixture(scope="module")
def reader(content_bundle: Path) -> TextEncoder:
    return TextEncoder.open(content_bundle)


def encoded(encoder: TextEncoder, texts: list[str], *, alone: bool = True) -> Encoded:
    work = EncodingSteps(encoder, texts, truncate=False, alone=alone)
    for part in range(len(work.parts)):
        work.read(part)
    for run in range(len(work.runs)):
        work.run(run)
    return work.answer


def test_steps_give_the_content_of_one_call(reader: TextEncoder) -> None:
    once = reader.encode(TEXTS).content
    for alone in (True, False):
        found = encoded(reader, TEXTS, alone=alone).content
        assert found is not None
        assert once is not None
        assert np.abs(found - once).max() <= 1e-4


def test_texts_encoded_alone_are_the_same_bits_in_any_list(reader: TextEncoder) -> None:
    whole, turned = encoded(reader, TEXTS), encoded(reader, TEXTS[::-1])
    for text, vector in zip(TEXTS, whole.vectors, strict=True):
        assert np.array_equal(encoded(reader, [text]).vectors[0], vector)
    assert np.array_equal(turned.vectors[::-1], whole.vectors)
    assert turned.content is not None
    assert whole.content is not None
    assert np.array_equal(turned.content[::-1], whole.content)


def test_what_the_cache_has_of_texts_in_company_is_not_that_of_texts_alone(
    content_bundle: Path,
) -> None:
    cached = TextEncoder.open(content_bundle, cache=VectorCache(1 << 20))
    encoded(cached, TEXTS, alone=False)
    work = EncodingSteps(cached, TEXTS, truncate=False, alone=True)
    for part in range(len(work.parts)):
        work.read(part)
    assert work.cached == 0
    encoded(cached, TEXTS)
    again = EncodingSteps(cached, TEXTS, truncate=False, alone=True)
    for part in range(len(again.parts)):
        again.read(part)
    assert again.cached == len(TEXTS)
    fresh = encoded(TextEncoder.open(content_bundle), TEXTS).content
    assert again.answer.content is not None
    assert np.array_equal(again.answer.content, fresh)


@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize("texts", [(), ("das Haus",), ("das Haus mit", "the tree of")])
def test_content_of_an_item_is_that_of_embed(
    reader: TextEncoder, content: ContentMap, texts: tuple[str, ...], has_image: bool
) -> None:
    image = np.random.default_rng(3).normal(3, 2, (1, IMAGE)).astype(np.float32)
    columns = {f"text_{i}": [text] for i, text in enumerate(texts)} or {"text": [None]}
    batch = ItemBatch(0, 1, columns, {"image": (image, np.array([has_image]))}, {})
    expected = contents_of(content, encode(reader, batch)).get(0)
    found = encoded(reader, list(texts)) if texts else None
    given = {"image": image[0]} if has_image else {}
    none = np.empty((0, 1), np.float32)
    vectors, contents = (none, none) if found is None else (found.vectors, found.content)
    assert contents is not None
    item = content.of_item(vectors, contents, given)
    if expected is None:
        assert item is None
    else:
        assert item is not None
        assert np.abs(item - expected).max() <= 1e-4
