"""Sizes of the encoder, by the names of the published ``config.json``; without torch.

Source: Günther et al. 2023 (arXiv 2310.19923) and Mohr et al. 2024 (arXiv 2402.17016).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Variant = Literal["base", "qk_norm", "code"]
Precision = Literal["float32", "bfloat16"]
LARGEST_MULTIPLE = 512  # that the rows of word tables are rounded up to


class EncoderSizes(BaseModel):
    """Shape of a JinaBERT. The defaults are those of preset ``demo``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    variant: Variant = Field(
        default="base",
        description="qk_norm: layer norm of queries and keys (Spanish); code: the code variant",
    )
    vocabulary: int = Field(default=16_384, ge=6, le=2**24, description="tokens")
    hidden: int = Field(default=384, ge=1, le=8192, description="D, of a token's vector")
    layers: int = Field(default=1, ge=1, le=96, description="transformer layers")
    heads: int = Field(default=6, ge=1, le=256, description="attention heads, a divisor of hidden")
    intermediate: int = Field(default=768, ge=1, le=65_536, description="I, half the gated layer")
    activation: Literal["gelu", "relu"] = Field(
        default="gelu", description="of the gate: gelu in its erf form (GEGLU), or relu (ReGLU)"
    )
    token_types: int = Field(default=2, ge=1, le=16, description="rows of the type table")
    norm_epsilon: float = Field(default=1e-12, gt=0, le=1e-2, description="of every layer norm")
    initial_deviation: float = Field(default=0.01, gt=0, le=1, description="of initial weights")

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderSizes:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        return self


def vocabulary_fault(tokens: int, rows: int) -> str | None:
    """Describe ids without a row, or more rows than padding explains.

    Published word tables are rounded up, to a power of two or by up to 2 %.
    """
    if tokens > rows:
        return f"the tokenizer has {tokens} tokens, more than the {rows} rows"
    if rows - tokens >= max(min(rows & -rows, LARGEST_MULTIPLE), rows // 50, 1):
        return f"the tokenizer has {tokens} tokens, too few for the {rows} rows"
    return None
