"""Sizes of synthetic data, and the schema that follows from them."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from feature_store.schema import MAX_HISTORY, Categorical, CategoricalList, Dense, FeatureSchema
from training.click_model import LEVELS


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SynthesisSizes:
    """Sizes of a synthetic data folder. The defaults are the demo's."""

    train: int = Field(default=400_000, ge=4, description="training rows")
    valid: int = Field(default=20_000, ge=4, description="validation rows")
    test: int = Field(default=20_000, ge=4, description="rows without labels")
    items: int = Field(default=2_000, ge=10, le=2**31 - 2)
    tags: int = Field(default=200, ge=1, le=2**31 - 2)
    tag_slots: int = Field(default=5, ge=1, le=1024, description="most tags an item has")
    embedding: int = Field(default=32, ge=1, le=4096, description="numbers in a content embedding")
    history: int = Field(default=32, ge=1, le=MAX_HISTORY, description="longest history")
    item_width: int = Field(default=16, ge=1, le=4096, description="of each item feature")
    context_width: int = Field(default=8, ge=1, le=4096, description="of each level")

    @property
    def schema(self) -> FeatureSchema:
        """The challenge's features in these sizes; for the challenge's sizes, its own schema."""
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
