"""Runs the unfolded network: in PyTorch, exported by PyTorch, and in float64."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feature_store.contract import ItemRows
from model_export.bench.interleave import Run
from model_export.bench.request import Request, known_user
from model_export.bundle.sessions import open_session
from model_export.quality.golden_cases import network_answer, network_items, user_inputs
from training.published_qin import Positions, PublishedQIN
from training.qin import QIN, Batch

POSITIONS = 512 * 64  # history items per call; the keys of more would take gigabytes


class Published:
    """The published formulation: raw features, one row per candidate with the whole history."""

    def __init__(self, network: QIN, rows: ItemRows) -> None:
        """``rows``: the items that requests refer to by position."""
        self.network = network
        self.inputs = network_items(network.schema, rows)
        self.user, self.features = known_user(network.schema)
        names = [feature.name for feature in network.schema.context]
        self.context = np.stack([rows[name] for name in names], 1) if names else _none(len(rows))

    def eager(self, request: Request) -> Run:
        parts = self._parts(request)
        model = PublishedQIN(self.network).eval()

        def run() -> list[Tensor]:
            with torch.inference_mode():
                return [torch.sigmoid(model(positions)) for positions in parts]

        return run

    def exported(self, request: Request, file: Path, threads: int) -> Run:
        """Export with PyTorch, traced for the shapes of ``request``."""
        sessions, feeds = {}, []
        for positions in self._parts(request):
            own = positions.user | positions.request
            inputs = (*positions.items.values(), *own.values(), positions.mask, positions.context)
            names = [*positions.items, *own, "mask", "context"]
            if len(positions.mask) not in sessions:
                module = _Exportable(self.network, positions)
                _export(module, inputs, names, file)
                sessions[len(positions.mask)] = open_session(file, threads)
            session = sessions[len(positions.mask)]
            known = {value.name for value in session.get_inputs()}
            named = zip(names, inputs, strict=True)
            feeds.append((session, {n: v.numpy() for n, v in named if n in known}))
        return lambda: [session.run(None, feed) for session, feed in feeds]

    def in_float64(self, request: Request) -> NDArray[np.float64]:
        """(C,) probabilities without float32 rounding."""
        exact = copy.deepcopy(self.network).double().eval()
        items = {n: v.double() if v.is_floating_point() else v for n, v in self.inputs.items()}
        answers = [
            network_answer(
                exact,
                items,
                part.history,
                part.candidates,
                self._levels(part),
                user=self.user,
                features=self.features,
            )
            for part in request.parts(POSITIONS // len(request.history))
        ]
        return np.concatenate(answers).astype(np.float64)

    def _parts(self, request: Request) -> list[Positions]:
        size = max(1, POSITIONS // len(request.history))
        return [Positions.of(self._batch(part)) for part in request.parts(size)]

    def _batch(self, request: Request) -> Batch:
        count = len(request.candidates)
        past = torch.from_numpy(request.history.astype(np.int64)) + 1  # 0 is the padding item
        return Batch(
            items=self.inputs,
            target=torch.from_numpy(request.candidates.astype(np.int64)) + 1,
            history=past.expand(count, -1),
            context=torch.from_numpy(self._levels(request).astype(np.int64)),
            label=torch.zeros(count),
            **user_inputs(self.network, self.user, self.features, count),
        )

    def _levels(self, request: Request) -> NDArray[np.int32]:
        levels: NDArray[np.int32] = self.context[request.candidates]
        return levels


def _none(count: int) -> NDArray[np.int32]:
    return np.zeros((count, 0), np.int32)


class _Exportable(nn.Module):
    """The published formulation with plain tensors as arguments."""

    def __init__(self, network: QIN, example: Positions) -> None:
        super().__init__()
        self.published = PublishedQIN(network)
        self.items, self.user, self.request = map(
            list, (example.items, example.user, example.request)
        )
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        *values, mask, context = inputs
        left = iter(values)
        items, user, request = (
            {name: next(left) for name in names} for names in (self.items, self.user, self.request)
        )
        return torch.sigmoid(self.published(Positions(items, mask, context, user, request)))


def _export(module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], file: Path) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of fixed shapes, which is intended
        torch.onnx.export(
            module, inputs, str(file), dynamo=False, opset_version=17, input_names=names
        )
