"""Numbers of an ablation: the encoders' recipe, and how much is evaluated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from text.encoder.recipe import Masked, MultiTask, Pairs, Recipe
from text.encoder.sizes import EncoderSizes
from training.recipe_files import RecipeFiles

_NUMBERS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
MOST = 2**31
KEPT_IN = "ablation.json"


class Evaluation(BaseModel):
    """Items that each arm is evaluated on, the same for all arms and seeds."""

    model_config = _NUMBERS

    graded: int = Field(default=1500, ge=2, le=MOST, description="graded pairs of two languages")
    queries: int = Field(default=400, ge=1, le=MOST, description="queries of a retrieval task")
    documents: int = Field(
        default=600, ge=1, le=MOST, description="documents of a task: the relevant ones and others"
    )
    longest: int = Field(default=128, ge=8, le=8192, description="tokens of a text")


class Length(BaseModel):
    """The claim on length: networks for long documents, and the texts that they are tested on."""

    model_config = _NUMBERS

    sizes: EncoderSizes = EncoderSizes(
        vocabulary=2048, hidden=128, layers=2, heads=4, intermediate=256, initial_deviation=0.05
    )
    masked: Masked = Masked(steps=2500, batch_size=32, learning_rate=3e-3, share=0.2)
    longest: int = Field(default=8192, ge=256, le=8192, description="tokens of the longest text")
    texts: int = Field(default=6, ge=1, le=MOST, description="texts of a language")
    planted: int = Field(
        default=40, ge=2, le=MOST, description="documents with a planted page, of each length"
    )


class Ablation(BaseModel):
    """Numbers of an ablation. The defaults are preset ``demo``: about an hour on two cores."""

    model_config = _NUMBERS

    encoder: Recipe = Recipe(
        masked=Masked(steps=150),
        pairs=Pairs(steps=250, batch_size=128, words=0),  # a dictionary favours a language
        multi_task=MultiTask(steps=160, queries=2000, retrieval_batch=32),
        rarity=0,  # among six languages every word is rarer
    )
    evaluation: Evaluation = Evaluation()
    length: Length = Length()


RECIPES = RecipeFiles(Ablation(), "text.ablate", KEPT_IN, "text ablate")
