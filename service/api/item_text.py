"""``text`` and ``vectors`` in writes of items: the encoder makes an item feature of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_store.descriptions import is_blank
from feature_store.schema import Dense, FeatureSchema
from service.api.body import NUMBERS, Contents, TextContents, deadline_seconds
from service.context import RequestContext, priority_of
from service.encoding.content_feature import content_feature
from service.errors import InvalidField, ModelFault, NotReady
from service.server.disconnect import CancelOnDisconnect
from service.settings import Settings

if TYPE_CHECKING:
    from service.encoding.encoding import TextEncoding  # takes an extra
    from service.encoding.item_content import ItemContent
    from text.runtime.encoder import TextEncoder

TEXT, VECTORS = "text", "vectors"
LANGUAGE = r"[A-Za-z][A-Za-z0-9-]{0,34}"  # as BCP 47's, loosely
MOST_LANGUAGES = 16
MOST_VECTORS = 3  # given vectors, as a map has at most
MOST_NUMBERS = 16_384  # of one
LARGEST = float(np.finfo(np.float32).max)
Values = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class ItemWords:
    """What a write has of an item's texts and given vectors, checked."""

    encoder: TextEncoder  # that makes the content
    feature: Dense  # that gets it
    texts: dict[str, str]  # by language; blank ones are left out
    vectors: dict[str, NDArray[np.float64]]

    def check(self, content: NDArray[np.float32]) -> None:
        """Raise InvalidField, by what a content was made of, if the feature cannot hold it."""
        if not np.abs(content).max() <= self.feature.most:  # NaN too
            detail = f"makes a {self.feature.name} that is not within {self.feature.limit}"
            raise InvalidField.of(VECTORS if self.vectors else TEXT, detail=detail)


class ItemTexts:
    """Reads ``text`` and ``vectors``, and encodes them."""

    def __init__(
        self, encoding: TextEncoding | None, schema: FeatureSchema, settings: Settings
    ) -> None:
        self._encoding, self._settings = encoding, settings
        self._features = {feature.name: feature for feature in schema.stored_item}
        self._names = [name for name in (TEXT, VECTORS) if name not in self._features]

    @property
    def most_deadline_ms(self) -> float:
        return max(self._settings.max_deadline_ms, self._settings.encoder_deadline_ms)

    @property
    def is_on(self) -> bool:
        """Whether the service has an encoder."""
        return self._encoding is not None and TEXT in self._names

    def bounds(self, features: Contents) -> Contents:
        """Bounds of a valid body, from those of a body of features alone."""
        if not self.is_on:
            return features
        quotes, numbers = 4 * (MOST_LANGUAGES + MOST_VECTORS + 2), self._most_numbers()
        return TextContents(
            features.values + quotes + numbers,
            features.quotes + quotes,
            features.digits + numbers * 64,
            features.lists + quotes,
        )

    def _most_numbers(self) -> int:
        """Most numbers that the given vectors of an item have, by the loaded encoders' maps."""
        assert self._encoding is not None
        maps = [encoder.content_map for encoder in self._encoding.loaded()]
        inputs = [found.about.inputs.items() for found in maps if found is not None]
        sums = (sum(size for name, size in each if name != TEXT) for each in inputs)
        return max(sums, default=0 if maps else MOST_VECTORS * MOST_NUMBERS)

    def active(self) -> TextEncoder | None:
        """Return the active version's encoder; None in a service without. NotReady."""
        return None if self._encoding is None else self._encoding.encoder

    def take(
        self, values: Values, encoder: Callable[[], TextEncoder | None], *within: str
    ) -> ItemWords | None:
        """Take texts and vectors out of a write's values; None if it has none. InvalidField.

        ``encoder`` is called if there are any, for the one to encode them with: None without.
        ``within``: the member of the body that has the features.
        """
        given = {name: values.pop(name) for name in self._names if name in values}
        if not given:
            return None
        first, chosen = next(iter(given)), encoder()
        if chosen is None:
            raise InvalidField.of(
                first, detail="this service has no encoder (QIN_ENCODER): give the vector itself"
            )
        content = chosen.content_map
        if content is None:
            detail = "the encoder has no map to an item feature: build it with --content"
            raise InvalidField.of(first, detail=detail)
        about = content.about
        feature = content_feature(content, self._features.values())
        if feature is None:
            other = self._features.get(about.feature)
            there = f"has {other.size} here" if isinstance(other, Dense) else "items lack"
            what = f"{about.feature} of {about.size} numbers, which {there}"
            raise InvalidField.of(first, detail=f"the encoder is for {what}")
        if about.feature in values:
            detail = f"made of {' and '.join(given)}: leave it out, or leave those out"
            raise InvalidField.of(*within, about.feature, detail=detail)
        texts = _texts(given[TEXT]) if TEXT in given else {}
        sizes = {name: size for name, size in about.inputs.items() if name != TEXT}
        vectors = _vectors(given[VECTORS], sizes) if VECTORS in given else {}
        if content.fitting([*([TEXT] if texts else []), *vectors]) is None:
            parts = " or ".join(" and ".join(part) for part in content.parts)
            raise InvalidField.of(first, detail=f"not enough for a content: give {parts}")
        return ItemWords(chosen, feature, texts, vectors)

    def is_replaced_by(self, values: Values) -> bool:
        """Whether a write gives the feature that texts are for: the one of the encoder's map, or
        without a map the only vector that items have."""
        features = {name for name, f in self._features.items() if isinstance(f, Dense)}
        if self._encoding is not None:
            with suppress(NotReady):
                content = self._encoding.encoder.content_map
                features = features if content is None else {content.about.feature}
        return len(features) == 1 and not features.isdisjoint(values)

    async def encode(self, words: ItemWords, ctx: RequestContext) -> ItemContent:
        """Encode what ``take`` has returned, admitted as requests for vectors are.

        InvalidField names the text. OverCapacity, DeadlinePassed.
        """
        from service.encoding.item_content import item_content
        from text.runtime.encoder import NOT_FINITE
        from text.runtime.errors import TextError

        encoding, settings = self._encoding, self._settings
        assert encoding is not None
        seconds = deadline_seconds(ctx, settings.encoder_deadline_ms, self.most_deadline_ms)
        deadline = ctx.timer.started + seconds
        ctx.priority = priority_of(ctx.headers.get(b"x-priority"))
        if not words.texts:
            found = await item_content(encoding, words.encoder, {}, words.vectors, None, deadline)
            words.check(found.values)
            return found
        languages = sorted(words.texts)
        own = [words.texts[language] for language in languages]
        permit = encoding.enter(own, ctx.priority, deadline, encoder=words.encoder)
        try:
            with permit, CancelOnDisconnect(ctx.connection, permit.defer):
                found = await item_content(
                    encoding, words.encoder, words.texts, words.vectors, permit, deadline
                )
        except TextError as error:
            where = (TEXT, languages[error.index])
            if error.fault == NOT_FINITE:
                raise ModelFault(f"{'.'.join(where)}: {error.fault}") from error
            raise InvalidField.of(*where, detail=error.fault) from None
        words.check(found.values)
        return found


def _texts(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        detail = 'must be an object of texts by language, as {"de": "…"}'
        raise InvalidField.of(TEXT, detail=detail)
    if len(given) > MOST_LANGUAGES:
        raise InvalidField.of(TEXT, detail=f"{len(given)} languages, at most {MOST_LANGUAGES}")
    for language, text in given.items():
        if not re.fullmatch(LANGUAGE, language):
            raise InvalidField.of(
                TEXT, language, detail="not the name of a language, as de or pt-BR"
            )
        if text is not None and not isinstance(text, str):
            raise InvalidField.of(TEXT, language, detail="must be a text")
    return {
        language: text
        for language, text in given.items()
        if text is not None and not is_blank(text)
    }


def _vectors(given: Any, sizes: dict[str, int]) -> dict[str, NDArray[np.float64]]:
    if not isinstance(given, dict):
        raise InvalidField.of(VECTORS, detail="must be an object of vectors by name")
    found: dict[str, NDArray[np.float64]] = {}
    for name, vector in given.items():
        if name not in sizes:
            detail = f"the encoder's map takes {', '.join(sizes) or 'no vectors'}"
            raise InvalidField.of(VECTORS, name, detail=detail)
        if vector is None:
            continue
        if not isinstance(vector, list) or len(vector) != sizes[name]:
            detail = f"must be a list of {sizes[name]} numbers"
            raise InvalidField.of(VECTORS, name, detail=detail)
        found[name] = _vector(name, vector)
    return found


def _vector(name: str, numbers: list[Any]) -> NDArray[np.float64]:
    """Return numbers as tables have them, of 32 bits. InvalidField for one that is not finite."""
    if NUMBERS.issuperset(map(type, numbers)):  # bool is another type
        with suppress(OverflowError):  # an integer of more than 308 digits
            vector = np.array(numbers, np.float64)
            if np.abs(vector).max() <= LARGEST:  # so NaN is not
                return vector.astype(np.float32).astype(np.float64)
    at = next(i for i, number in enumerate(numbers) if not _is_finite(number))
    raise InvalidField.of(VECTORS, name, at, detail="must be a finite number of 32 bits")


def _is_finite(number: Any) -> bool:
    return type(number) in NUMBERS and abs(number) <= LARGEST
