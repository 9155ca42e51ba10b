"""A request for scores some of whose candidates are inline."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model_export.bundle.vectors import Positions
from service.api.id_kind import IdKind
from service.api.inline_models import InlineCandidate
from service.api.score_models import ScoreRequest
from service.errors import InvalidField
from service.scoring.inline_items import NamedTexts, numbered
from service.scoring.query import ScoreQuery

CANDIDATES = "candidates"


@dataclass(frozen=True, slots=True)
class InlineRequest:
    """A request, some of whose candidates are inline: I of them."""

    request: ScoreRequest  # with an id that means nothing in their places
    places: Positions  # (I,)
    inline: list[InlineCandidate]

    async def query(self, ids: IdKind) -> ScoreQuery:
        """Convert all but the inline candidates' records."""
        query = await ids.query(self.request)
        names = self._names()
        candidates = numbered(query.candidates, self.places)
        texts = NamedTexts(self.places, names, len(candidates), query.texts)
        return replace(query, candidates=candidates, texts=texts)

    def _names(self) -> list[str]:
        """Name each inline candidate. InvalidField for a name that another candidate has."""
        places = self.places.tolist()
        own = set(places)
        taken = {str(c) for i, c in enumerate(self.request.candidates) if i not in own}
        names = []
        for place, each in zip(places, self.inline, strict=True):
            name = f"{CANDIDATES}.{place}" if each.name is None else each.name
            if name in taken:
                detail = "another candidate of the request has this name or id"
                raise InvalidField.of(CANDIDATES, place, "name", detail=detail)
            taken.add(name)
            names.append(name)
        return names
