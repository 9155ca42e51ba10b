"""Computes the offline answer of a bundle from its graphs and the feature store.

One request at a time, without chunks, item table or threads, so that the service's optimisations
are checked against code that has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadtest.generator.population import PATIENCE_MS
from loadtest.oracle.comparison import Notes, Scores, UnknownVersion

if TYPE_CHECKING:  # loaded only with --oracle
    from feature_store import FeatureStore
    from feature_store.contract import User
    from model_export.bundle.bundle import Bundle
    from model_export.bundle.runtime import FoldedModel
    from model_export.bundle.vectors import UserRow


class OracleError(ValueError):
    """No usable bundle at a path; the message names the remedy."""


class BundleOracle:
    """The offline answers of a bundle, or of all bundles in a folder, over one feature store."""

    def __init__(self, path: Path, store: str) -> None:
        from feature_store.errors import StoreMismatch
        from model_export.bundle.bundle import Bundle, usable
        from model_export.bundle.errors import BundleError

        self._loop = asyncio.new_event_loop()
        self._store: FeatureStore
        self._models: dict[str, FoldedModel] = {}
        self.skipped: list[Exception] = []  # errors of bundles that are not used
        self._users: dict[int | str, User] = {}
        if (path / "manifest.json").exists():
            try:
                self._load(Bundle.open(path), store)
            except BaseException:
                self._loop.close()
                raise
        else:
            for bundle in usable(path, self.skipped.append):
                try:
                    self._load(bundle, store)
                except (BundleError, StoreMismatch) as error:
                    self.skipped.append(error)
        if not self._models:
            self._loop.close()
            why = f" that can be used: {self.skipped[0]}" if self.skipped else ""
            raise OracleError(f"oracle: {path} holds no bundle{why} (python -m model_export build)")
        self.versions = tuple(self._models)

    def _load(self, bundle: Bundle, store: str) -> None:
        """Load a model. BundleError, or StoreMismatch if it was written for another store."""
        import feature_store
        from feature_store.errors import StoreMismatch
        from feature_store.options import StoreOptions
        from model_export.bundle.runtime import FoldedModel

        model = FoldedModel(bundle)
        if not self._models:
            options = StoreOptions(budget_ms=PATIENCE_MS)
            connecting = feature_store.connect(store, bundle.schema, options=options)
            try:
                self._store = self._loop.run_until_complete(connecting)
            except StoreMismatch as error:
                raise StoreMismatch(f"bundle {bundle.version}: {error}") from None
        elif found := bundle.schema.unserved_by(self._store.schema):
            raise StoreMismatch(
                f"bundle {bundle.version}: the store does not fit its schema: {'; '.join(found)}; "
                "use a store that was loaded with it"
            )
        self._models[model.version] = model

    def scores(self, version: str, request: dict[str, Any]) -> Scores:
        model = self._model(version)
        candidates = self._numbers(request["candidates"])
        known, rows = self._known(candidates)
        scores = np.full(candidates.size, np.nan)
        if known.any():
            items = model.items(rows)
            _, past = self._known(self._history(request, model.schema.history_length))
            history = model.history(model.items(past).vector)
            context = self._context(model, request, known, rows)
            user = self._user_row(model, request)
            scores[known] = model.exact(model.in_context(items, context), history, user)
        return scores

    def notes(self, version: str, request: dict[str, Any]) -> Notes:
        model = self._model(version)
        names = {feature.name for feature in model.schema.request}
        ignored = [name for name in request.get("features") or {} if name not in names]
        user = self._user_row(model, request)
        return Notes(None if user is None else list(user.defaulted), ignored or None)

    def _model(self, version: str) -> FoldedModel:
        if version not in self._models:
            raise UnknownVersion(version)
        return self._models[version]

    def _user_row(self, model: FoldedModel, request: dict[str, Any]) -> UserRow | None:
        """Run the user tower; None for a model without user and request features."""
        if not (model.schema.user or model.schema.request):
            return None
        user, record = self._user(request["user_id"]), None
        if model.schema.user and user.status == 0:
            record = user.row
        return model.user(record, request.get("features"))

    def _numbers(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """(N,) the store's numbers of a request's ids; those of a numeric store may be strings."""
        if self._store.text_ids is not None:
            return self._store.text_ids.numbers(list(map(str, ids)))
        return np.array(list(map(int, ids)), np.int64)

    def _known(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.void]]:
        """Look ids up: which the store has (N,), and their records."""
        batch = self._loop.run_until_complete(self._store.items(ids))
        found = batch.status == 0
        return found, batch.rows[found]

    def _history(self, request: dict[str, Any], length: int) -> NDArray[np.int64]:
        """Read the newest ``length`` items; the network does not depend on their order."""
        if request.get("history") is not None:
            return self._numbers(request["history"])[-length:]
        stored = self._user(request["user_id"]).history
        return np.array([] if stored is None else stored, np.int64)[:length]

    def _user(self, user: int | str) -> User:
        """Read a user's history and record, once."""
        if user not in self._users:
            number = int(self._numbers([user])[0])
            self._users[user] = self._loop.run_until_complete(self._store.user(number))
        return self._users[user]

    def _context(
        self, model: Any, request: dict[str, Any], known: NDArray[np.bool_], rows: NDArray[np.void]
    ) -> NDArray[np.int32]:
        """Build (C, context features) from the request, else from the item records."""
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
