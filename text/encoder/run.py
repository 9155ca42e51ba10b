"""Runs the steps of stages and keeps the state of a run, so that a killed one goes on.

A resumed run ends with the same weights: every batch follows from the step, and the state holds
weights, the optimiser's moments and the step, written under a temporary name and renamed; and the
number of threads, on which the last digits of sums depend.
"""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from text.encoder import schedule
from text.encoder.recipe import AdamW
from text.encoder.stages import Stage
from training.loop.run_threads import go_on_with
from training.loop.saved_state import DAMAGED, load_state
from training.output import writing
from training.progress import OnProgress, no_progress

logger = logging.getLogger("text")

SAVE_SECONDS = 30.0
RECORDED = 50  # steps whose mean loss is an entry of the history


class RunError(ValueError):
    """A run that cannot go on; the message names cause and remedy."""


@dataclass
class Run:
    """A run's weights, place and history; ``path`` keeps them while the run is not complete."""

    modules: nn.Module
    adam: AdamW
    path: Path
    on_progress: OnProgress = no_progress
    save_seconds: float = SAVE_SECONDS
    done: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._saved = self._resumed() if self.path.exists() else None

    def is_new(self, stage: str) -> bool:
        """Tell whether no step of a stage is kept."""
        return stage not in self.done and (self._saved is None or self._saved["stage"] != stage)

    def train(self, stage: Stage) -> None:
        """Run a stage's steps, from where a kept state stopped; a stage done is passed over."""
        if stage.name in self.done:
            return
        optimiser = schedule.optimiser(self.modules.named_parameters(), self.adam)
        step, losses = 0, list[float]()
        if self._saved is not None and self._saved["stage"] == stage.name:
            optimiser.load_state_dict(self._saved["optimiser"])
            step, losses = self._saved["step"], self._saved["losses"]
            logger.info("%s: resumed at step %s of %s", self.path, step, stage.steps)
        self._saved = None
        self.modules.train()
        kept = started = time.monotonic()
        while step < stage.steps:
            losses.append(self._step(stage, optimiser, step))
            step += 1
            if step % RECORDED == 0 or step == stage.steps:
                entry = {"stage": stage.name, "step": step, "loss": sum(losses) / len(losses)}
                self.history.append(entry | {"seconds": round(time.monotonic() - started, 2)})
                losses = []
            if time.monotonic() - kept >= self.save_seconds and step < stage.steps:
                self._save(stage.name, step, optimiser, losses)
                kept = time.monotonic()
            self.on_progress(stage.name, step, stage.steps)
        if odd := [n for n, x in self.modules.named_parameters() if not bool(x.isfinite().all())]:
            raise RunError(
                f"stage {stage.name}: {odd[0]} is not finite after the last step: "
                f"lower {stage.name}.learning_rate{self._and_delete()}"
            )
        self.done.append(stage.name)
        self._save("", 0, None, [])
        self.modules.eval()

    def _step(self, stage: Stage, optimiser: torch.optim.AdamW, step: int) -> float:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step, stage.steps, stage.learning_rate, self.adam.warm_up)
        optimiser.zero_grad(set_to_none=True)
        loss = stage.loss(step)
        value = loss.item()
        if not math.isfinite(value):
            raise RunError(
                f"stage {stage.name}, step {step}: the loss is {value}: "
                f"lower {stage.name}.learning_rate{self._and_delete()}"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.modules.parameters(), self.adam.gradient_clip)
        optimiser.step()
        return value

    def _and_delete(self) -> str:
        """Word the rest of a remedy: a kept state is of the recipe that does not do."""
        return f" and delete {self.path.parent}" if self.path.exists() else ""

    def _save(
        self, stage: str, step: int, optimiser: torch.optim.AdamW | None, losses: list[float]
    ) -> None:
        state = {
            "weights": self.modules.state_dict(),
            "optimiser": None if optimiser is None else optimiser.state_dict(),
            "stage": stage,
            "step": step,
            "losses": losses,
            "done": self.done,
            "history": self.history,
            "threads": torch.get_num_threads(),
        }
        new = self.path.with_name(self.path.name + ".new")
        with writing(self.path):
            with new.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)

    def _resumed(self) -> dict[str, Any]:
        """Take weights, stages done and history from the kept state, and return it."""
        try:
            saved = dict(load_state(self.path))
            self.modules.load_state_dict(saved["weights"])
            self.done, self.history = saved["done"], saved["history"]
            threads = int(saved.get("threads", torch.get_num_threads()))  # older states: unknown
        except DAMAGED as error:
            raise RunError(
                f"{self.path}: damaged; delete {self.path.parent} to start again"
            ) from error
        go_on_with(threads, self.path)
        return saved
