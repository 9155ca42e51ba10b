"""Sizes of the network beyond those of the schema; without torch, for the command line."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class QINSizes(BaseModel):
    """What the schema does not fix. The defaults are the paper's winning sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attention_width: int = Field(default=768, ge=1, le=8192, description="of queries and keys")
    layers: int = Field(default=4, ge=1, le=32, description="quadratic layers")
    rows: int = Field(default=4, ge=1, le=64, description="R, products per quadratic layer")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of both dropouts of a layer")
    output_bias: bool = Field(default=False, description="a bias in W_o, as in the level variant")

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit ``output_bias`` where there is none: older releases reject it."""
        content: dict[str, Any] = serialise(self)
        if not self.output_bias:
            del content["output_bias"]
        return content
