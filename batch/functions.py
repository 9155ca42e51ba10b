"""Scores lists within another engine: a function of Arrow arrays for Spark, Daft and the like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from batch.errors import BatchError
from batch.inputs.columns import RequestReader
from batch.job import Columns, Cut
from batch.output.parts import list_array, score_array
from batch.scoring.scorer import Scorer
from feature_store.parquet.arrays import plain

USER, ITEMS = "user_id", "item_ids"


class ScoreLists:
    """Scores lists in the process it is called in. Pickles without the model, which the first call
    loads: one for each process of the other engine."""

    def __init__(
        self, bundle: str, store: str, *, cut: Cut | None = None, table_folder: str | None = None
    ) -> None:
        """``cut``: see ``--threads-as``. ``table_folder``: shared by the processes of a machine."""
        self._bundle, self._store, self._cut = bundle, store, cut or Cut()
        self._table_folder = None if table_folder is None else Path(table_folder)
        self._scorer: Scorer | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_scorer": None}

    def __call__(self, users: pa.Array, items: pa.Array) -> pa.Array:
        """Users (N,) and their lists of item ids (N,) -> lists of float32 scores; null: unknown.

        BatchError names the first row with a fault.
        """
        if self._scorer is None:
            self._scorer = Scorer(Path(self._bundle), self._store, self._cut, self._table_folder)
        scorer = self._scorer
        columns = Columns("lists", USER, ITEMS)
        reader = RequestReader(columns, scorer.schema, scorer.store.text_ids)
        requests = reader.read(Path("lists"), {USER: plain(users), ITEMS: plain(items)})
        for row, (column, reason) in sorted(requests.faults.items())[:1]:
            raise BatchError(f"row {row}, column {column}: {reason}")
        scores = scorer.score(requests)
        for row, reason in sorted(scores.faults.items())[:1]:
            raise BatchError(f"row {row}: {reason}")
        return list_array(score_array(scores.scores), np.asarray(requests.starts))
