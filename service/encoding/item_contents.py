"""Contents of several items at once: each the same bits as that of the item alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoding import TextEncoding
from service.encoding.token_admission import TokenPermit
from text.runtime.encoder import TextEncoder

Texts = Mapping[str, str]  # language -> text
Given = Mapping[str, NDArray[np.floating]]  # other vectors, by name


def in_order(items: Sequence[Texts]) -> list[tuple[int, str]]:
    """List item and language of all texts, in the order in which they are encoded and summed."""
    return [(item, language) for item, texts in enumerate(items) for language in sorted(texts)]


async def item_contents(
    encoding: TextEncoding,
    encoder: TextEncoder,
    items: Sequence[tuple[Texts, Given]],
    permit: TokenPermit | None,
    deadline: float,
) -> list[NDArray[np.float32]]:
    """Encode items that the encoder's map has a part for, to contents (C,).

    ``permit``: of ``encoding.enter`` for the texts ``in_order``; None if there are none. TextError,
    whose index is into these: also for a text that is too long. DeadlinePassed.
    """
    content_map = encoder.content_map
    assert content_map is not None
    texts = [texts for texts, _ in items]
    own = [texts[item][language] for item, language in in_order(texts)]
    none = np.empty((0, 1), np.float32)
    vectors, contents = none, none
    if permit is not None:
        encoded = await encoding.encode(own, False, permit, deadline, alone=True)
        assert encoded.content is not None, "the encoder has a map"
        vectors, contents = encoded.vectors, encoded.content
    found, start = [], 0
    for each, given in items:
        rows = slice(start, start + len(each))
        one = content_map.of_item(vectors[rows], contents[rows], given)
        assert one is not None, "it was checked that a part fits"
        found.append(one.astype(np.float32))
        start += len(each)
    return found
