"""Training rows as memory-mapped arrays, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_store.schema import FeatureSchema, Numeric
from training.data.catalogue import Catalogue
from training.data.user_ids import UserTexts
from training.data.users import RowUsers
from training.qin import Batch


@dataclass(frozen=True)
class Rows:
    """n rows, memory-mapped, may exceed memory. Items are rows of the catalogue, 0 for none."""

    items: Catalogue
    user: NDArray[np.int64]  # (n,)
    history: NDArray[np.int32]  # (n, L) newest on the right
    target: NDArray[np.int32]  # (n,)
    context: NDArray[np.int32]  # (n, context features) in schema order
    label: NDArray[np.float32]  # (n,) 0 or 1; NaN throughout in a file without labels
    request: NDArray[np.void] | None = None  # (n,) a field per request feature; NaN where missing
    users: RowUsers | None = None  # where the schema has user features
    user_texts: UserTexts | None = None  # of text ids, whose numbers ``user`` has

    @property
    def schema(self) -> FeatureSchema:
        return self.items.schema

    @property
    def labelled(self) -> bool:
        return not np.isnan(self.label[0])

    @property
    def digest(self) -> str:
        """Digest of users, targets, labels, user and request features."""
        columns: list[NDArray[Any]] = [self.user, self.target, self.label]
        if self.request is not None:
            columns.append(self.request)
        if self.users is not None:
            columns += [self.users.row, *(t.numpy() for t in self.users.tensors.values())]
        return _digest(columns)

    @property
    def input_digest(self) -> str:
        """Digest of histories and context features."""
        return _digest([self.history, self.context])

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Build a batch of the chosen rows, in that order, over their distinct items and users."""
        target = torch.from_numpy(self.target[chosen]).long()
        history = torch.from_numpy(self.history[chosen]).long()
        used = torch.zeros(len(self.items), dtype=torch.bool)
        used[0] = True  # the padding item is item 0 of every batch
        used[target] = True
        used[history.view(-1)] = True
        distinct = used.nonzero().squeeze(1)
        position = used.cumsum(0) - 1
        users, user = ({}, None) if self.users is None else self.users.batch(chosen)
        return Batch(
            items={name: values[distinct] for name, values in self.items.tensors.items()},
            target=position[target],
            history=position[history],
            context=torch.from_numpy(self.context[chosen]).long(),
            label=torch.from_numpy(self.label[chosen]),
            users=users,
            user=user,
            request=self._request(chosen),
        )

    def _request(self, chosen: NDArray[np.int64]) -> dict[str, Tensor]:
        """Gather the request features of rows, (B,) each."""
        if self.request is None:
            return {}
        rows = self.request[chosen]
        return {
            f.name: torch.from_numpy(
                rows[f.name].astype(np.float32 if isinstance(f, Numeric) else np.int64)
            )
            for f in self.schema.request
        }


def _digest(columns: Iterable[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).view(np.uint8).data)
    return digest.hexdigest()[:16]
