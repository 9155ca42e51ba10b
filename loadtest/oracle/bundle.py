"""The offline answer of a bundle: its own graphs, the store's own records, one request at a time.

No chunks, no item table, no threads: the shortest way from a request to its scores, so that what
the service adds for speed is checked against something that has none of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadtest.oracle.oracle import Scores, UnknownVersion

if TYPE_CHECKING:  # a load without an oracle does without them
    from feature_store import FeatureStore
    from model_export.bundle.bundle import Bundle
    from model_export.bundle.runtime import FoldedModel


class OracleError(ValueError):
    """An oracle that cannot be had; the message names the file and the remedy."""


class BundleOracle:
    """``path``: a bundle, or a folder of bundles. ``store``: where histories and items are."""

    def __init__(self, path: Path, store: str) -> None:
        from feature_store.errors import StoreMismatch
        from model_export.bundle.bundle import Bundle, usable
        from model_export.bundle.errors import BundleError

        self._loop = asyncio.new_event_loop()
        self._store: FeatureStore
        self._models: dict[str, FoldedModel] = {}
        self.passed_over: list[Exception] = []  # why bundles of the folder are not used
        self._histories: dict[int, NDArray[np.int64]] = {}
        if (path / "manifest.json").exists():
            self._take(Bundle.open(path), store)
        else:
            for bundle in usable(path, self.passed_over.append):
                try:
                    self._take(bundle, store)
                except (BundleError, StoreMismatch) as error:
                    self.passed_over.append(error)
        if not self._models:
            self._loop.close()
            why = f" that can be used: {self.passed_over[0]}" if self.passed_over else ""
            raise OracleError(f"oracle: {path} holds no bundle{why} (python -m model_export build)")
        self.versions = tuple(self._models)

    def _take(self, bundle: Bundle, store: str) -> None:
        """BundleError, or StoreMismatch for one that is not for this store."""
        import feature_store
        from feature_store.errors import StoreMismatch
        from model_export.bundle.runtime import FoldedModel

        model = FoldedModel(bundle)
        if not self._models:
            connecting = feature_store.connect(store, bundle.schema)
            self._store = self._loop.run_until_complete(connecting)
        elif found := bundle.schema.layout_differences(self._store.schema):
            raise StoreMismatch(f"{bundle.path}: written for another schema: {'; '.join(found)}")
        self._models[model.version] = model

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
