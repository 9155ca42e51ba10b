"""Runs a bundle's graphs: item features and a history in, click probabilities out.

Threads share the sessions: ``run`` is thread-safe and releases the GIL.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.contents import Wanted
from feature_store.contract import ItemRows
from feature_store.schema import Dense
from model_export.bundle.batch_invariance import is_batch_invariant
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.explain import Influence, strongest
from model_export.bundle.extremes import Extremes
from model_export.bundle.graphs import Graphs, Precision, for_openvino, with_int8
from model_export.bundle.manifest import INT8, USER_TOWER, Largest
from model_export.bundle.sessions import Placement, ProviderChoice, open_session, place
from model_export.bundle.size_buckets import Session, open_ranker
from model_export.bundle.user_tower import UserRows, UserTower, Value
from model_export.bundle.vectors import (
    Candidates,
    Floats,
    HistoryRows,
    Indices,
    ItemVectors,
    UserRow,
    known,
)

TYPICAL = 96  # golden items, of which the ordinary ones come first
UNUSUAL_LOGIT = 50.0  # beyond it a float32 probability is 0 or 1


def wanted_content(bundle: Graphs) -> Wanted | None:
    """Return the content that a bundle's network was trained with; None: any will do."""
    content = bundle.manifest.content if isinstance(bundle, Bundle) else None
    return None if content is None else content.wanted


class FoldedModel:
    """A bundle's graphs, loaded. Build once per version and share between threads."""

    def __init__(
        self,
        bundle: Graphs,
        *,
        threads: int = 1,
        precision: Precision = "fp32",
        provider: ProviderChoice | Placement = "cpu",
        tf32: bool = False,
        callers: int = 1,
        top_k: Precision | None = None,
    ) -> None:
        """Load the graphs. Raises BundleError, and ProviderError if ``provider`` is unavailable.

        ``threads``: intra-op threads per call; 1 unless a single caller has the machine.
        ``precision`` int8 loads ``ranker.int8``, and bf16 the ranker in OpenVINO's bfloat16,
        besides the float32 ranker, which is then the CPU's. ``tf32`` lets a GPU round factors to
        10 bits: faster, with errors of 1e-3. ``callers``: threads that score at once. ``top_k``:
        the precision of shortlists, where that is another than ``precision`` (of which it may be
        float32, or the reduced one beside float32).
        """
        self.schema, self.version, self._threads = bundle.schema, bundle.version, threads
        self.precision, self.top_k, self._bundle = precision, top_k or precision, bundle
        self.reduced = self.top_k if precision == "fp32" else precision  # fp32: none is loaded
        if self.top_k not in ("fp32", self.reduced):
            raise BundleError(f"top_k={top_k}: not with precision={precision}; use one of them")
        self.wanted = wanted_content(bundle)
        self.placement = place(bundle.graph("ranker"), provider, threads)
        where = self.placement.provider
        if precision == "bf16" and where != "openvino":
            raise BundleError(f"precision=bf16 runs on openvino only; use fp32 on {where}")
        if precision == "int8" and where != "cpu":
            raise BundleError(f"precision=int8 runs on the CPU only; use fp32 on {where}")
        self._item_tower = open_session(bundle.graph("item_tower"), threads)
        self._history_tower = open_session(bundle.graph("history_tower"), threads)
        self._context_tower = (
            open_session(bundle.graph("context_tower"), threads) if self.schema.context else None
        )
        has_user = self.schema.user or self.schema.request
        self._user_tower = UserTower(bundle, threads) if has_user else None
        self._exact_provider = "cpu" if precision == "bf16" else where
        graph = (
            bundle.graph("ranker") if self._exact_provider != "openvino" else for_openvino(bundle)
        )
        self._ranker = open_ranker(graph, threads, self._exact_provider, callers, tf32=tf32)
        self._reduced: Session | None = None  # int8 or bf16
        self.largest: Largest | None = None  # numbers of the gate's requests
        self.logit_bound = np.inf  # largest |Δlogit| of ``_reduced`` on the gate's data, for top-k
        if self.reduced != "fp32":
            self._reduced = self._open_reduced(bundle, threads, callers)
            gate = bundle.manifest.gate(self.reduced) if isinstance(bundle, Bundle) else None
            if gate is not None:
                self.logit_bound = gate.top_k_bound
                self.largest = gate.largest

    def _open_reduced(self, bundle: Graphs, threads: int, callers: int) -> Session:
        if self.reduced == "bf16":
            return open_ranker(for_openvino(bundle), threads, "openvino", callers, bf16=True)
        return open_session(with_int8(bundle), threads)

    def items(self, rows: ItemRows) -> ItemVectors:
        """Run the item tower on (N,) ``schema.item_dtype``; unknown indices become 0."""
        feeds: dict[str, NDArray[Any]] = {}
        for feature in self.schema.item:
            values = rows[feature.name]
            if isinstance(feature, Dense):
                feeds[feature.name] = np.ascontiguousarray(values, np.float32)
            else:
                feeds[feature.name] = known(values, feature.vocabulary)
        vector, row = self._item_tower.run(["vector", "row"], feeds)
        context = np.empty((len(rows), len(self.schema.context)), np.int32)
        for column, name in enumerate(f.name for f in self.schema.context):
            context[:, column] = rows[name]
        return ItemVectors(vector, row + self._share(context), context)

    @property
    def rounding_accepted(self) -> bool:
        """Whether the bundle was published beyond the bounds of float32 rounding."""
        return isinstance(self._bundle, Bundle) and self._bundle.manifest.parity.rounding_accepted

    @cached_property
    def extremes(self) -> Extremes:
        """Computed on first use. Raises BundleError if the golden answers cannot be read."""
        return Extremes(self, self._typical)

    @cached_property
    def _typical(self) -> ItemVectors:
        """Golden items. BundleError."""
        rows = np.zeros(1, self.schema.item_dtype)
        if isinstance(self._bundle, Bundle):
            golden = self._bundle.golden().items[:TYPICAL]
            rows = golden if golden.dtype == rows.dtype else rows  # else ``verify`` reports it
        return self.items(rows)

    def scorable(self, items: ItemVectors) -> NDArray[np.bool_]:
        """(N,): which items have finite scores, that is numbers neither NaN nor huge."""
        return self.extremes.scorable(self, items)

    def cold(self, rows: ItemRows) -> NDArray[np.bool_]:
        """(N,): which items have no identity in this model (index 0 or beyond its vocabulary)."""
        if self.schema.identity is None:
            return np.zeros(len(rows), np.bool_)
        index = rows[self.schema.identity]
        vocabulary = next(
            f.vocabulary
            for f in self.schema.item
            if f.name == self.schema.identity and not isinstance(f, Dense)
        )
        return (index <= 0) | (index >= vocabulary)

    def in_context(self, items: Candidates, context: Indices) -> ItemVectors:
        """Set the items' contexts (N, F); recomputes only rows whose context differs."""
        row = items.row
        moved = np.flatnonzero((items.context != context).any(axis=1))
        if len(moved):
            row = row.copy()
            row[moved] += self._share(context[moved]) - self._share(items.context[moved])
        return ItemVectors(items.vector, row, context)

    def _share(self, context: Indices) -> Floats:
        """(N, F) -> (N, X), or (1, 1) zero without context: the levels' share of the rows."""
        if self._context_tower is None:
            return np.zeros((1, 1), np.float32)
        share: Floats = self._context_tower.run(["share"], self._levels(context))[0]
        return share

    def history(self, vector: Floats) -> HistoryRows:
        """Run the history tower on (L, D) item vectors, in any order; L may be 0."""
        return HistoryRows(*self._history_tower.run(["keys", "values", "rows"], {"vector": vector}))

    def user(
        self, record: UserRows | None = None, request: Mapping[str, Value] | None = None
    ) -> UserRow | None:
        """Run the user tower, once per request; None for a schema without user and request
        features.

        ``record``: (1,) of ``schema.user_dtype``, None for an unknown user. ``request``: values by
        name of request features; one that is absent, None, NaN or of an unknown index is missing.
        """
        if self._user_tower is None:
            return None
        if record is None and not request:
            return self._user_tower.unknown
        return self._user_tower.row(record, request or {})

    def rank(self, items: Candidates, history: HistoryRows, user: UserRow | None = None) -> Floats:
        """Candidates (C), each in the context it carries, a history, a user -> probability (C,).

        One call is one chunk: split long lists before. Unknown context indices become 0. ``user``
        None, here and below: no user or request feature is known. In the model's own precision;
        ``logits`` and ``exact`` choose theirs.
        """
        return _bounded(self._in_precision(self.precision, "probability", items, history, user))

    def exact(self, items: Candidates, history: HistoryRows, user: UserRow | None = None) -> Floats:
        """As ``rank``, always in float32."""
        return _bounded(self._run(self._ranker, "probability", items, history, user))

    def rescore(
        self, items: ItemVectors, history: HistoryRows, user: UserRow | None = None
    ) -> tuple[Floats, Floats]:
        """float32 probability (C,) and logit (C,), bit-identical to those of a longer list."""
        count = len(items)
        # The runtime uses another kernel for a single row, which may differ in the last bit.
        pair = items.take(np.zeros(2, np.int64)) if count == 1 else items
        outputs = ["probability", "logit"]
        probability, logit = self._run_all(self._ranker, outputs, pair, history, user)
        return _bounded(probability[:count]), logit[:count]

    def logits(
        self,
        items: Candidates,
        history: HistoryRows,
        precision: Precision = "fp32",
        user: UserRow | None = None,
    ) -> Floats:
        """As ``rank``, before the sigmoid."""
        return self._in_precision(precision, "logit", items, history, user)

    @cached_property
    def is_batch_invariant(self) -> bool:
        """Whether a float32 score has the same bits in every call of two or more candidates.

        By trial with golden items, on first use. Raises BundleError as ``extremes`` does.
        """
        if self._exact_provider != "cpu" or self._threads != 1:
            return False
        return is_batch_invariant(self, self._typical)

    @property
    def has_shortlists(self) -> bool:
        """Whether top-k is to be shortened by int8 or bf16, with a known error bound."""
        known_bound = self.top_k != "fp32" and bool(np.isfinite(self.logit_bound))
        return known_bound and self.is_batch_invariant

    def explain(
        self,
        items: Candidates,
        history: HistoryRows,
        top: int,
        same: NDArray[np.int64] | None = None,
        user: UserRow | None = None,
    ) -> Influence:
        """Per candidate, the ``top`` history items with the largest share of the pooled vector.

        ``same`` (L,): see ``explain.strongest``.
        """
        attention: Floats = self._run(self._ranker, "attention", items, history, user)
        return strongest(attention, history.values, top, same)

    def _in_precision(
        self,
        precision: Precision,
        output: str,
        items: Candidates,
        history: HistoryRows,
        user: UserRow | None,
    ) -> Floats:
        session = self._chosen(precision)
        if precision == "fp32":
            return self._run(session, output, items, history, user)
        return self._reduced_and_exact(session, output, items, history, user)

    def _reduced_and_exact(
        self,
        session: Session,
        output: str,
        items: Candidates,
        history: HistoryRows,
        user: UserRow | None,
    ) -> Floats:
        """Run in int8 or bf16; if logits are huge, those in float32 and the others again: the
        candidates of a call in int8 share one range of 255 steps, which outliers use up."""
        outputs = ["logit"] if output == "logit" else [output, "logit"]
        answers = self._run_all(session, outputs, items, history, user)
        logit = answers[-1]
        apart = ~(np.abs(logit) <= UNUSUAL_LOGIT)  # NaN too
        if not apart.any():
            return answers[0]
        found, ranker = np.empty(len(logit), np.float32), self._ranker
        for chosen, run in ((apart, ranker), (~apart, session)):
            part = ItemVectors(items.vector[chosen], items.row[chosen], items.context[chosen])
            found[chosen] = self._run(run, output, part, history, user)
        return found

    def _chosen(self, precision: Precision) -> Session:
        if precision == "fp32":
            return self._ranker
        if self._reduced is None or precision != self.reduced:
            raise BundleError(
                f'this model was loaded without {precision}: FoldedModel(precision="{precision}")'
            )
        return self._reduced

    def _run(
        self,
        session: Session,
        output: str,
        items: Candidates,
        history: HistoryRows,
        user: UserRow | None,
    ) -> Floats:
        return self._run_all(session, [output], items, history, user)[0]

    def _run_all(
        self,
        session: Session,
        outputs: list[str],
        items: Candidates,
        history: HistoryRows,
        user: UserRow | None,
    ) -> list[Floats]:
        if not len(items.vector):  # a convolution rejects an empty image
            none = np.zeros(0, np.float32), np.zeros((0, len(history.keys)), np.float32)
            return [none[output == "attention"] for output in outputs]
        answers: list[Floats] = session.run(outputs, self.feeds(items, history, user))
        return answers

    def feeds(
        self, items: Candidates, history: HistoryRows, user: UserRow | None = None
    ) -> dict[str, NDArray[Any]]:
        """The ranker's inputs by name."""
        feeds: dict[str, NDArray[Any]] = {
            "vector": items.vector,
            "row": items.row,
            "history_keys": history.keys,
            "history_values": history.values,
            "history_rows": history.rows,
        }
        if self._user_tower is not None:
            known_user = user or self._user_tower.unknown
            feeds["user"], feeds["user_row"] = known_user.vector, known_user.row
        feeds.update(self._levels(items.context))
        return feeds

    def _levels(self, context: Indices) -> Mapping[str, Indices]:
        """One contiguous (N,) array per context feature."""
        features = enumerate(self.schema.context)
        return {f.name: known(context[:, column], f.vocabulary) for column, f in features}

    def signatures(self) -> dict[str, dict[str, tuple[str, list[Any]]]]:
        """graph -> input or output name -> (type, shape), as loaded."""
        sessions = {
            "item_tower": self._item_tower,
            "context_tower": self._context_tower,
            USER_TOWER: self._user_tower and self._user_tower.session,
            "history_tower": self._history_tower,
            "ranker": self._ranker,
            INT8: self._reduced if self.reduced == "int8" else None,
        }
        return {
            name: {a.name: (a.type, a.shape) for a in (*s.get_inputs(), *s.get_outputs())}
            for name, s in sessions.items()
            if s is not None
        }


def _bounded(probability: Floats) -> Floats:
    """Clip in place: the runtime's sigmoid is approximate, 1.0000001 at some logits near 18."""
    return np.clip(probability, 0, 1, out=probability)
