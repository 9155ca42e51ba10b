"""Sizes of synthetic data, and the schema that follows from them."""

from __future__ import annotations

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from feature_store.schema import (
    MAX_HISTORY,
    Categorical,
    CategoricalList,
    Dense,
    FeatureSchema,
    Numeric,
)
from training.synthetic.click_model import LEVELS
from training.synthetic.taste import COUNTRIES, DEVICES

USER_INDEX = "user_index"


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
    rows_per_user: int = Field(default=4, ge=1, description="in the training rows")
    taste: bool = Field(default=False, description="clicks depend on user and request, too")
    catalogue: bool = Field(default=False, description="items of a text corpus, without tags")
    cold: int = Field(default=0, ge=0, description="held-out rows of cold items alone")
    user_width: int = Field(default=8, ge=1, le=4096, description="of each of their features")

    @property
    def train_users(self) -> int:
        return -(-self.train // self.rows_per_user)

    @property
    def schema(self) -> FeatureSchema:
        """The challenge's features in these sizes; for the challenge's sizes, its own schema.

        With ``taste``, user and request features, too, and levels that history items carry.
        """
        schema = self.plain_schema
        if self.taste:
            width = self.user_width
            return FeatureSchema(
                **{name: getattr(schema, name) for name in FeatureSchema.model_fields}
                | {
                    "user": (
                        Categorical(name=USER_INDEX, vocabulary=self.train_users + 1, width=width),
                        Categorical(name="country", vocabulary=COUNTRIES + 1, width=width),
                    ),
                    "user_identity": USER_INDEX,
                    "request": (
                        Categorical(name="device", vocabulary=DEVICES + 1, width=width),
                        Numeric(name="hour", kind="numeric", width=width),
                    ),
                }
            )
        challenge = FeatureSchema.microlens()
        same = schema.model_copy(update={"name": challenge.name}) == challenge
        return challenge if same else schema

    @property
    def plain_schema(self) -> FeatureSchema:
        """The schema without user and request features."""
        width = self.item_width
        levels = tuple(
            Categorical(name=name, vocabulary=LEVELS + 1, width=self.context_width)
            for name in ("likes_level", "views_level")
        )
        return FeatureSchema(
            name="synthetic",
            history_length=self.history,
            identity="item_id",
            item=(
                *(levels if self.taste else ()),
                Categorical(name="item_id", vocabulary=self.items + 1, width=width),
                *(() if self.catalogue else (self._tags,)),
                Dense(name="item_emb_d128", kind="dense", size=self.embedding, width=width),
            ),
            context=levels,
        )

    @property
    def _tags(self) -> CategoricalList:
        return CategoricalList(
            name="item_tags",
            kind="categorical_list",
            vocabulary=self.tags + 1,
            slots=self.tag_slots,
            width=self.item_width,
        )


SIZES = {
    "demo": SynthesisSizes(),
    "taste": SynthesisSizes(taste=True, rows_per_user=40),
    "catalogue": SynthesisSizes(catalogue=True, embedding=128, cold=20_000),
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
