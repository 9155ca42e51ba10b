"""The offline answer of a bundle: its own graphs, the store's own records, one request at a time.

No chunks, no item table, no threads: the shortest way from a request to its scores, so that what
the service adds for speed is checked against something that has none of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.oracle.oracle import Scores, UnknownVersion


class OracleError(ValueError):
    """An oracle that cannot be had; the message names the file and the remedy."""


class BundleOracle:
    """``path``: a bundle, or a folder of bundles. ``store``: where histories and items are."""

    def __init__(self, path: Path, store: str) -> None:
        import feature_store
        from model_export.bundle.bundle import Bundle
        from model_export.bundle.runtime import FoldedModel

        folders = [path] if (path / "manifest.json").exists() else sorted(path.iterdir())
        bundles = [Bundle.open(f) for f in folders if (f / "manifest.json").exists()]
        if not bundles:
            raise OracleError(f"oracle: {path} holds no bundle (python -m model_export build)")
        self._models = {model.version: model for model in map(FoldedModel, bundles)}
        self.versions = tuple(self._models)
        self._loop = asyncio.new_event_loop()
        self._store = self._loop.run_until_complete(feature_store.connect(store, bundles[0].schema))
        self._histories: dict[int, NDArray[np.int64]] = {}

    def scores(self, version: str, request: dict[str, Any]) -> Scores:
        if version not in self._models:
            raise UnknownVersion(version)
        model = self._models[version]
        candidates = np.array(request["candidates"], np.int64)
        known, rows = self._known(candidates)
        scores = np.full(candidates.size, np.nan)
        if known.any():
            items = model.items(rows)
            _, past = self._known(self._history(request, model.schema.history_length))
            history = model.history(model.items(past).vector)
            context = self._context(model, request, known, rows)
            scores[known] = model.exact(model.in_context(items, context), history)
        return scores

    def _known(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.void]]:
        """Which of them the store knows (N,), and the records of those."""
        batch = self._loop.run_until_complete(self._store.items(ids))
        found = batch.status == 0
        return found, batch.rows[found]

    def _history(self, request: dict[str, Any], length: int) -> NDArray[np.int64]:
        """The newest ``length`` items; their order does not matter to the network."""
        if request.get("history") is not None:
            return np.array(request["history"], np.int64)[-length:]
        user = request["user_id"]
        if user not in self._histories:
            stored = self._loop.run_until_complete(self._store.history(user))
            self._histories[user] = np.array([] if stored is None else stored, np.int64)[:length]
        return self._histories[user]

    def _context(
        self, model: Any, request: dict[str, Any], known: NDArray[np.bool_], rows: NDArray[np.void]
    ) -> NDArray[np.int32]:
        """(C, context features): the request's own where it gives them, else the items'."""
        given = request.get("context") or {}
        columns = [
            np.array(given[feature.name], np.int32)[known]
            if feature.name in given
            else rows[feature.name].astype(np.int32)
            for feature in model.schema.context
        ]
        shape = (int(known.sum()), len(columns))
        return np.stack(columns, axis=1) if columns else np.empty(shape, np.int32)

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())
        self._loop.close()
