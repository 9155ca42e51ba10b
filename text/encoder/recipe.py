"""Hyperparameters of the stages. Every number that changes the weights is here by name."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from text.encoder.sizes import EncoderSizes, Precision

_NUMBERS = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
MOST_STEPS = 10**8

Similarity = Literal["pearson", "squared", "none"]


# Widths of beginnings that are trained as vectors, as divisors of the whole (Matryoshka).
PARTS = (1, 2, 4, 8)


class AdamW(BaseModel):
    """Constants of AdamW; the rate is each stage's."""

    model_config = _NUMBERS

    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(default=0.98, ge=0, lt=1, description="decay of the mean square")
    epsilon: float = Field(default=1e-6, gt=0, le=1, description="added to the root of the square")
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, description="of matrices; biases and norms have none"
    )
    gradient_clip: float = Field(default=1.0, gt=0, le=1e9, description="norm of all gradients")
    warm_up: float = Field(
        default=0.06, ge=0, lt=1, description="share of a stage in which the rate rises"
    )


class Masked(BaseModel):
    """Stage I: masked language modelling."""

    model_config = _NUMBERS

    steps: int = Field(default=250, ge=0, le=MOST_STEPS, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, le=2**20, description="texts per step")
    longest: int = Field(default=128, ge=8, le=8192, description="tokens of a text")
    learning_rate: float = Field(default=2e-3, gt=0, le=10, description="peak; then linear to 0")
    share: float = Field(default=0.3, gt=0, lt=1, description="words masked, whole")


class Pairs(BaseModel):
    """Stage II: bidirectional InfoNCE on text pairs."""

    model_config = _NUMBERS

    steps: int = Field(default=1400, ge=0, le=MOST_STEPS, description="optimiser steps")
    batch_size: int = Field(default=256, ge=2, le=2**20, description="pairs per step")
    longest: int = Field(default=64, ge=8, le=8192, description="tokens of a text")
    learning_rate: float = Field(default=1.5e-3, gt=0, le=10, description="peak; then linear to 0")
    temperature: float = Field(default=0.05, gt=0, le=10, description="τ")
    words: float = Field(
        default=0.2, ge=0, le=1, description="share of batches that are words of a dictionary"
    )
    words_batch: int = Field(
        default=1024, ge=2, le=2**20, description="pairs of words per step of such a batch"
    )
    parallel: float = Field(
        default=0.2, ge=0, le=1, description="share of the others whose pairs are translations"
    )
    titles: float = Field(
        default=0.85, ge=0, le=1, description="share of the rest whose pairs are title and text"
    )


class Distilled(BaseModel):
    """A teacher's similarities, after stage II; not in the published recipe."""

    model_config = _NUMBERS

    steps: int = Field(
        default=0, ge=0, le=MOST_STEPS, description="optimiser steps; needs --teacher"
    )
    pairs: int = Field(
        default=10_000, ge=16, le=2**31, description="whose texts the teacher encodes, once"
    )
    batch_size: int = Field(default=128, ge=2, le=2**20, description="pairs per step")
    longest: int = Field(default=64, ge=8, le=8192, description="tokens of a text")
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="peak; then linear to 0")


class MultiTask(BaseModel):
    """Stage III: retrieval with hard negatives, and similarity, one task a batch."""

    model_config = _NUMBERS

    steps: int = Field(default=280, ge=0, le=MOST_STEPS, description="optimiser steps")
    similarity: Similarity = Field(
        default="pearson", description="loss of every other batch; none: retrieval alone"
    )
    queries: int = Field(
        default=8000, ge=64, le=2**31, description="queries of a kind, with mined negatives"
    )
    retrieval_batch: int = Field(default=32, ge=2, le=2**20, description="queries per step")
    negatives: int = Field(default=5, ge=1, le=40, description="m, hard negatives of a query")
    similarity_batch: int = Field(default=128, ge=16, le=2**20, description="pairs per step")
    longest: int = Field(default=64, ge=8, le=8192, description="tokens of a text")
    learning_rate: float = Field(default=5e-4, gt=0, le=10, description="peak; then linear to 0")
    temperature: float = Field(default=0.05, gt=0, le=10, description="τ")
    matryoshka: bool = Field(
        default=False, description="train the first 1/2, 1/4, 1/8 of the numbers too"
    )


class Recipe(BaseModel):
    """Numbers of a run. The defaults are preset ``demo``: 25 minutes on two cores."""

    model_config = _NUMBERS

    sizes: EncoderSizes = EncoderSizes()
    adam: AdamW = AdamW()
    masked: Masked = Masked()
    pairs: Pairs = Pairs()
    distilled: Distilled = Distilled()
    multi_task: MultiTask = MultiTask()
    lowercase: bool = Field(default=True, description="the tokenizer reads texts in lower case")
    rarity: float = Field(
        default=2.0,
        ge=0,
        le=10,
        description="power of inverse document frequencies, weights when pairs begin; 0: none",
    )
    precision: Precision = Field(
        default="bfloat16",
        description="of products with weights; float32 where the processor has no bfloat16",
    )
    seed: int = Field(default=20240226, ge=0, lt=2**63, description="of weights and batches")
