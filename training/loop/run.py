"""The state of a training run: place, best weights and history, kept while it is not complete."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.loop.data_parallel import ProcessGroup
from training.loop.optimiser import Optimiser
from training.loop.run_threads import go_on_with
from training.loop.saved_state import DAMAGED, load_state
from training.output import writing
from training.qin import QIN
from training.recipe import Recipe, differences

DIGESTS_OF_0_1 = 2  # in the identity of a run: of train's and valid's labels


class FitError(ValueError):
    """Unusable data or resume state; the message names the remedy."""


class Run:
    """A run, saved after each epoch."""

    def __init__(
        self,
        network: QIN,
        optimiser: Optimiser,
        recipe: Recipe,
        data: str,
        state: Path,
        group: ProcessGroup,
    ) -> None:
        self.network, self.optimiser, self.recipe = network, optimiser, recipe
        self.state, self.group = state, group
        self.identity = {
            "recipe": recipe.model_dump_json(),
            "schema": network.schema.model_dump_json(),
            "data": data,
        }
        self.epoch, self.best_epoch, self.best, self.stale = 0, 0, -1.0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []

    @property
    def over(self) -> bool:
        return self.epoch >= self.recipe.epochs or self.stale >= self.recipe.patience

    @property
    def learning_rate(self) -> float:
        return self.optimiser.learning_rate

    def judge(self, value: float) -> None:
        """Keep the weights of the best epoch; without improvement, lower the learning rate."""
        if value > self.best:
            self.best, self.best_epoch, self.stale = value, self.epoch, 0
            self.best_weights = copy.deepcopy(self.network.state_dict())
            return
        self.stale += 1
        floor = min(self.recipe.learning_rate_floor, self.learning_rate)
        lower = self.learning_rate * self.recipe.learning_rate_factor
        self.optimiser.learning_rate = max(lower, floor)

    def metrics(self) -> dict[str, Any]:
        best = next((e for e in self.history if e["epoch"] == self.best_epoch), {})
        return {
            **{k: best[k] for k in ("valid_auc", "valid_logloss", "train_loss") if k in best},
            "best_epoch": self.best_epoch,
            "seconds": sum(e["seconds"] for e in self.history),
            "recipe": self.recipe.model_dump(),
            "epochs": self.history,
        }

    def save(self) -> None:
        """Write the state atomically."""
        partial = self.state.with_suffix(".partial")
        content = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "best": self.best_weights,
            "optimiser": self.optimiser.state_dict(),
            "standing": [self.epoch, self.best_epoch, self.best, self.stale],
            "history": self.history,
            "threads": torch.get_num_threads(),
            "processes": self.group.count,
        }
        try:
            with writing(self.state):
                with partial.open("wb") as file:
                    torch.save(content, file)
                os.replace(partial, self.state)
        finally:
            partial.unlink(missing_ok=True)

    def resume(self) -> None:
        """Restore the state of an interrupted run, if any."""
        if not self.state.exists():
            return
        try:
            content = load_state(self.state)
            saved = content["identity"]
            # A run that an earlier release stopped lacks names of this one, their defaults, and
            # digests of histories and items.
            saved["recipe"] = Recipe.model_validate_json(saved["recipe"]).model_dump_json()
            if len(saved["data"].split()) == DIGESTS_OF_0_1:
                saved["data"] += " " + self.identity["data"].split(" ", DIGESTS_OF_0_1)[-1]
        except (OSError, *DAMAGED) as error:
            raise FitError(f"{self.state}: damaged; remove it to start over") from error
        other = [name for name, ours in self.identity.items() if saved.get(name) != ours]
        if other:
            numbers = differences(saved["recipe"], self.identity["recipe"])
            raise FitError(
                f"{self.state}: a run with another {' and '.join(other)} was stopped here{numbers}"
                "; finish it with its own options, remove this file to start over, or give "
                "another --out"
            )
        self.network.load_state_dict(content["network"])
        self.best_weights = content["best"]
        self.optimiser.load_state_dict(content["optimiser"])
        self.epoch, self.best_epoch, self.best, self.stale = content["standing"]
        self.history = content["history"]
        # Of another number of processes the sums are others in any case. 0.1.0 kept neither.
        if content.get("processes") == self.group.count:
            go_on_with(content["threads"], self.state, self.group.first)

    def remove_state(self) -> None:
        self.state.unlink(missing_ok=True)
