"""How much data to make, and the schema that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from training.taste import LEVELS


@dataclass(frozen=True, slots=True)
class SynthesisSizes:
    """How much to make. Users have four rows each."""

    train: int = 400_000
    valid: int = 20_000
    test: int = 20_000
    items: int = 2_000
    tags: int = 200
    tag_slots: int = 5
    embedding: int = 32
    history: int = 32
    item_width: int = 16  # of every item feature's embedding
    context_width: int = 8

    @property
    def schema(self) -> FeatureSchema:
        """The challenge's features in these sizes; at the challenge's own, its very schema."""
        width, levels = self.item_width, LEVELS + 1
        schema = FeatureSchema(
            name="synthetic",
            history_length=self.history,
            identity="item_id",
            item=(
                Categorical(name="item_id", vocabulary=self.items + 1, width=width),
                CategoricalList(
                    name="item_tags",
                    kind="categorical_list",
                    vocabulary=self.tags + 1,
                    slots=self.tag_slots,
                    width=width,
                ),
                Dense(name="item_emb_d128", kind="dense", size=self.embedding, width=width),
            ),
            context=(
                Categorical(name="likes_level", vocabulary=levels, width=self.context_width),
                Categorical(name="views_level", vocabulary=levels, width=self.context_width),
            ),
        )
        challenge = FeatureSchema.microlens()
        same = schema.model_copy(update={"name": challenge.name}) == challenge
        return challenge if same else schema


SIZES = {
    "demo": SynthesisSizes(),
    "challenge": SynthesisSizes(
        train=3_600_000,
        valid=10_000,
        test=379_142,
        items=91_717,
        tags=11_739,
        embedding=128,
        history=64,
        item_width=128,
        context_width=128,
    ),
}
