"""Hyperparameters of training: the published recipe and presets."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from training.qin import QINSizes


class Recipe(BaseModel):
    """The defaults are the published recipe (arXiv 2504.17699, its public configuration)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: QINSizes = QINSizes()
    learning_rate: float = Field(default=2e-3, gt=0)
    batch_size: int = Field(default=8192, ge=1)
    embedding_regulariser: float = Field(
        default=2e-4, ge=0, description="λ of (λ/2)·‖W‖² over all embedding tables and P"
    )
    gradient_clip: float = Field(default=10.0, gt=0, description="largest norm of all gradients")
    learning_rate_factor: float = Field(
        default=0.5, gt=0, le=1, description="applied after each epoch without improvement"
    )
    learning_rate_floor: float = Field(default=1e-6, gt=0)
    patience: int = Field(default=8, ge=1, description="epochs without improvement before the end")
    epochs: int = Field(default=100, ge=1)
    seed: int = Field(default=20242025, ge=0)


PRESETS = {
    "published": Recipe(),
    # Small layers and batches, for two cores.
    "demo": Recipe(
        sizes=QINSizes(attention_width=64, layers=2, rows=2, dropout=0.1),
        learning_rate=3e-3,
        batch_size=2048,
        embedding_regulariser=1e-5,
        patience=2,
        epochs=5,
    ),
}
