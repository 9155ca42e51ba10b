"""What ``tests.programs`` imports once for the programs it starts."""

import optuna  # noqa: F401
import torch._dynamo  # noqa: F401 — the first optimiser of a process would

import training.loop.fit  # noqa: F401
