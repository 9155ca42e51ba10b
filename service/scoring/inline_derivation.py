"""Derives inline candidates by the item tower, as stored items are."""

from __future__ import annotations

import numpy as np

from feature_store.contents import choose
from model_export.bundle.vectors import Mask
from service.errors import InvalidField
from service.items.item_tower import derive
from service.items.table import DerivedItems
from service.models.loaded_model import LoadedModel
from service.scoring.inline_items import InlineItems
from service.scoring.ranking import ScoringRun
from service.scoring.user_features import TOO_LARGE


async def derive_inline(inline: InlineItems, version: LoadedModel, run: ScoringRun) -> DerivedItems:
    """Run the item tower on engine threads. InvalidField names an item whose numbers make scores
    overflow; DeadlinePassed."""
    parts: dict[int, tuple[DerivedItems, Mask]] = {}
    model, rows = version.model, inline.rows
    lacks = np.zeros(len(inline), np.bool_)
    if model.wanted is not None:
        rows, lacks = choose(rows, inline.contents, model.wanted)

    def derive_chunk(start: int, end: int) -> None:
        parts[start] = derive(model, rows[start:end], lacks[start:end])

    await run.derive(derive_chunk, len(inline))
    ordered = [parts[start] for start in sorted(parts)]
    finite = np.concatenate([mask for _, mask in ordered])
    if not finite.all():
        place = int(inline.places[finite.argmin()])
        raise InvalidField.of("candidates", place, detail=TOO_LARGE)
    return DerivedItems.joined([items for items, _ in ordered])
