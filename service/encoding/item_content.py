"""Makes an item's content of its texts and given vectors, as ``text embed`` does of a table's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contents import Origin
from service.encoding.encoding import TextEncoding
from service.encoding.token_admission import TokenPermit
from text.runtime.encoder import TextEncoder

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ItemContent:
    """The content of one item."""

    origin: Origin
    values: Vector  # (C,)
    languages: tuple[str, ...]  # of the texts that it is made of
    truncated: tuple[str, ...]  # languages whose text was cut at the encoder's longest length
    tokens: int


def origin_of(encoder: TextEncoder) -> Origin | None:
    """Return the origin of an encoder's contents; None if it has no map."""
    content, digest = encoder.content_map, encoder.content_digest
    return None if content is None or digest is None else Origin(content.about.feature, digest)


async def item_content(
    encoding: TextEncoding,
    encoder: TextEncoder,
    texts: Mapping[str, str],
    vectors: Mapping[str, NDArray[np.floating]],
    permit: TokenPermit | None,
    deadline: float,
) -> ItemContent:
    """Encode an item's texts, by language, and map them with its given vectors, which fit a part
    of the map.

    Languages are averaged as unit vectors; what an item lacks is left out. ``permit``: of
    ``encoding.enter`` for the texts in the order of their languages; None without texts.

    TextError, whose index is into the sorted languages; DeadlinePassed.
    """
    content, origin = encoder.content_map, origin_of(encoder)
    assert content is not None
    assert origin is not None
    languages = sorted(texts)  # sums of vectors are in this order, as in ``text embed``
    unit, contents = np.zeros((0, encoder.width), np.float32), None
    truncated: tuple[str, ...] = ()
    tokens = 0
    if permit is not None:
        own = [texts[language] for language in languages]
        encoded = await encoding.encode(own, True, permit, deadline, alone=True)
        unit, contents, tokens = encoded.vectors, encoded.content, int(encoded.tokens.sum())
        cut = zip(languages, encoded.truncated.tolist(), strict=True)
        truncated = tuple(language for language, is_cut in cut if is_cut)
    found = content.of_item(unit, contents, vectors)
    assert found is not None, "it was checked that a part fits"
    return ItemContent(origin, found.astype(np.float32), tuple(languages), truncated, tokens)
