"""Content of items from their texts: the same bits for the same texts, in any request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoding import TextEncoding
from service.encoding.token_admission import TokenPermit
from service.errors import InvalidField, ModelFault
from text.runtime.content import ContentMap
from text.runtime.encoder import NOT_FINITE, TextEncoder
from text.runtime.errors import TextError, TextTooLong

Texts = Mapping[str, str]  # language -> text
Where = Callable[[int, str], Sequence[str | int]]  # item, language -> field of the request


@dataclass(frozen=True, slots=True)
class ItemContents:
    """Makes content with the map of the encoder's bundle."""

    content_map: ContentMap

    @classmethod
    def of(cls, encoder: TextEncoder) -> ItemContents | None:
        """None where the encoder has no map."""
        return None if encoder.content_map is None else cls(encoder.content_map)

    @property
    def feature(self) -> str:
        return self.content_map.about.feature

    @property
    def size(self) -> int:
        return self.content_map.about.size

    @staticmethod
    def flat(items: Sequence[Texts]) -> list[str]:
        """Return all texts, by item and, within it, by language: the order of their sums."""
        return [item[language] for item in items for language in sorted(item)]

    async def encode(
        self,
        encoding: TextEncoding,
        items: Sequence[Texts],
        permit: TokenPermit,
        deadline: float,
        where: Where,
    ) -> list[NDArray[np.float32]]:
        """Encode items, each with a text, to content (C,). InvalidField, DeadlinePassed.

        A text that is too long is refused, not cut.
        """
        places = [(i, language) for i, item in enumerate(items) for language in sorted(item)]
        try:
            encoded = await encoding.encode(self.flat(items), False, permit, deadline, alone=True)
        except TextError as error:
            field = where(*places[error.index])
            if error.fault == NOT_FINITE:
                named = ".".join(map(str, field))
                raise ModelFault(f"{named}: {error.fault}") from error
            fault = error.fault
            if isinstance(error, TextTooLong):
                fault = fault.removesuffix(" or ask to truncate")
            raise InvalidField.of(*field, detail=fault) from None
        assert encoded.content is not None, "the encoder has a map"
        found, start = [], 0
        for item in items:
            end = start + len(item)
            own = slice(start, end)
            one = self.content_map.of_item(encoded.vectors[own], encoded.content[own], {})
            assert one is not None, "every map has a part for texts"
            found.append(one.astype(np.float32))
            start = end
        return found
