"""Writes the metrics of each epoch as it ends: JSON lines, and events for TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from training.output import writing
from training.recipe import Recipe
from training.recipe_files import to_yaml

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Epoch = Mapping[str, Any]
OnEpoch = Callable[[Sequence[Epoch]], None]  # all epochs so far, the newest last
JSON_LINES = "metrics.jsonl"
TAGS = {
    "train_loss": "loss/training",
    "valid_logloss": "loss/validation",
    "valid_auc": "auc/validation",
    "learning_rate": "learning rate",
    "seconds": "seconds",
}


class TensorBoardMissingError(ValueError):
    """The extra ``tensorboard`` is not installed."""


def no_log(epochs: Sequence[Epoch]) -> None:
    """Ignore epochs."""


class JsonLines:
    """A line per epoch, on disk when the epoch has ended; null for NaN and infinity."""

    def __init__(self, path: Path, epochs: Sequence[Epoch]) -> None:
        """Start the file with the epochs of a resumed run."""
        self.path = path
        path.write_bytes(b"".join(map(_line, epochs)))

    def append(self, epoch: Epoch) -> None:
        with writing(self.path), self.path.open("ab") as file:
            file.write(_line(epoch))

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()

    def remove(self) -> None:
        self.path.unlink()


def _line(epoch: Epoch) -> bytes:
    return orjson.dumps(epoch, option=orjson.OPT_APPEND_NEWLINE)


class TensorBoard:
    """Events of a run in a folder. A resumed or repeated run replaces those that are there."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise TensorBoardMissingError(
                "--tensorboard: requires the extra tensorboard: `make setup` in a clone, elsewhere "
                "pip install -c constraints.txt 'qin-serving[tensorboard]'"
            )
        self.folder, self.recipe, self.written = folder, recipe, 0
        self._writer: SummaryWriter | None = None

    def __call__(self, epochs: Sequence[Epoch]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder, purge_step=1)
            text = "    " + to_yaml(self.recipe).replace("\n", "\n    ")  # code, in Markdown
            self._writer.add_text("recipe", text, 1)
        for epoch in epochs[self.written :]:
            for name, tag in TAGS.items():
                self._writer.add_scalar(tag, epoch[name], epoch["epoch"])
        self.written = len(epochs)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
