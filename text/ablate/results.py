"""Keeps the result of each arm and seed as a JSON file, so that a rerun does what is missing.

A result names what it follows from: recipe, corpora, start, and the edition of the ablation's
methods. One of anything else is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from text.encoder.run import RunError
from training.output import writing

EDITION = 1  # raised where a change of the code gives other figures from the same recipe


@dataclass(frozen=True)
class Result:
    """Figures of one arm with one seed; ``seconds`` of training and evaluation, in one process."""

    claim: str
    arm: str
    seed: int
    figures: Mapping[str, float]
    seconds: float


class Results:
    """Results in a folder, all of one identity."""

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        self.origin = {"edition": EDITION} | dict(origin)
        self._folder = folder
        canonical = orjson.dumps(self.origin, option=orjson.OPT_SORT_KEYS)
        self._identity = hashlib.sha256(canonical).hexdigest()

    def read(self, claim: str, arm: str, seed: int) -> Result | None:
        """Return a kept result. Raises RunError where it is of another origin or damaged."""
        path = self._path(claim, arm, seed)
        if not path.exists():
            return None
        try:
            kept = orjson.loads(path.read_bytes())
            identity, origin = kept["identity"], dict(kept["origin"])
            figures = {
                name: float("nan") if value is None else float(value)
                for name, value in dict(kept["figures"]).items()
            }
            seconds = float(kept["seconds"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}: not a result; delete it to measure again") from error
        if identity != self._identity:
            other = ", ".join(name for name in self.origin if origin.get(name) != self.origin[name])
            raise RunError(
                f"{path}: a result of another {other}; give those of that run to resume it, "
                "or another --out"
            )
        return Result(claim, arm, seed, figures, seconds)

    def write(self, result: Result) -> None:
        """Write a result under a temporary name and rename it."""
        path = self._path(result.claim, result.arm, result.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = asdict(result) | {"identity": self._identity, "origin": self.origin}
        new = path.with_name(f"{path.name}.new")
        with writing(path):
            with new.open("wb") as file:
                file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)

    def _path(self, claim: str, arm: str, seed: int) -> Path:
        return self._folder / f"{claim}-{arm}-{seed}.json"
