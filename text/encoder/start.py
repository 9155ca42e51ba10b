"""The checkpoint that a run starts from: its tokenizer, its weights, and the stages it has done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from text.encoder import checkpoint
from text.encoder.checkpoint import Checkpoint
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.recipe import Recipe
from text.encoder.run import RunError
from text.tokenizer import MASK, SPECIAL, TextTokenizer


@dataclass(frozen=True)
class Start:
    """A checkpoint of the recipe's sizes, with our tokenizer's layout."""

    checkpoint: Checkpoint
    digest: str

    @classmethod
    def read(cls, folder: Path, recipe: Recipe) -> Self:
        """Read it. Raises CheckpointError, and RunError where it does not fit the recipe."""
        found = checkpoint.load(folder)
        if found.tokenizer.special.get("mask") != SPECIAL[MASK]:
            raise RunError(
                f"{folder}: its tokenizer has no {SPECIAL[MASK]}; start from one of `fit`"
            )
        own, given = found.network.sizes.model_dump(), recipe.sizes.model_dump()
        other = [f"sizes.{name}={value}" for name, value in own.items() if given[name] != value]
        if other:
            settings = " --set ".join(other)
            raise RunError(f"{folder}: of other sizes than the recipe; --set {settings}")
        if (lowercase := found.tokenizer.is_lowercase) != recipe.lowercase:
            reads = "lower case" if lowercase else "case"
            settings = f"lowercase={str(lowercase).lower()}"
            raise RunError(f"{folder}: its tokenizer reads {reads}; --set {settings}")
        return cls(found, checkpoint.digest(folder))

    @property
    def tokenizer(self) -> TextTokenizer:
        return self.checkpoint.tokenizer

    @property
    def stages(self) -> list[str]:
        """Return the names of the stages that are not repeated."""
        return list(self.checkpoint.training.get("stages", []))

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self.checkpoint.training.get("history", []))

    def described(self) -> dict[str, Any]:
        """Return what ``training.json`` keeps of it: its own, but for the history."""
        kept = {name: v for name, v in self.checkpoint.training.items() if name != "history"}
        return {"digest": self.digest} | kept

    def fill(self, network: JinaBert, head: MaskedLanguageHead) -> None:
        """Copy its weights; a checkpoint without a masked-language head leaves that as it is."""
        network.load_state_dict(self.checkpoint.network.state_dict())
        if self.checkpoint.head is not None:
            head.load_state_dict(self.checkpoint.head.state_dict())
