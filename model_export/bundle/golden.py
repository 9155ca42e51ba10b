"""Golden answers: raw inputs, the PyTorch network's answers to them, and the error allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import MAX_HISTORY
from model_export.bundle import npz
from model_export.bundle.errors import BundleError, said
from model_export.bundle.manifest import TOLERANCE

# Limits far beyond an export's (hundreds of items, a few thousand answers).
MOST_BYTES = 64 << 20
MOST_ITEMS, MOST_REQUESTS = 16_384, 16_384
MOST_CANDIDATES = 1024  # of one request
OPTIONAL = frozenset({"bound", "users", "user", "features"})  # absent from earlier formats
UNREADABLE = (
    OSError, EOFError, TypeError, ValueError, KeyError, MemoryError, NotImplementedError,
    RuntimeError, SyntaxError, BadZipFile, ZlibError,
)  # fmt: skip


class Ranks(Protocol):
    """The part of ``FoldedModel`` that is used here."""

    def items(self, rows: ItemRows) -> Any: ...
    def history(self, vector: NDArray[np.float32]) -> Any: ...
    def in_context(self, items: Any, context: NDArray[np.int32]) -> Any: ...
    def user(self, record: Any, request: Any) -> Any: ...
    def exact(self, items: Any, history: Any, user: Any) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """One user's history and candidates, as positions in ``Golden.items``."""

    name: str
    history: NDArray[np.int32]  # (L,)
    candidates: NDArray[np.int32]  # (C,)
    context: NDArray[np.int32]  # (C, context features)
    probability: NDArray[np.floating]  # (C,)
    user: NDArray[np.void] | None  # (1,) of schema.user_dtype; None for no record
    features: dict[str, float]  # the request's, by name: missing is 0, or NaN


@dataclass(frozen=True, slots=True)
class Difference:
    """Errors against the network's answers. The worst case is the worst by its own bound."""

    max_abs_error: float
    worst_case: str
    cases: int
    error: float  # of the worst case
    bound: float  # of the worst case


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Requests of different lengths, concatenated: request i is ``offsets[i]:offsets[i + 1]``."""

    items: ItemRows  # (U,) of schema.item_dtype
    names: NDArray[np.str_]  # (R,)
    history: NDArray[np.int32]  # (ΣL,)
    history_offsets: NDArray[np.int64]  # (R + 1,)
    candidates: NDArray[np.int32]  # (ΣC,)
    candidate_offsets: NDArray[np.int64]  # (R + 1,)
    context: NDArray[np.int32]  # (ΣC, context features)
    probability: NDArray[np.floating]  # (ΣC,) float64; float32 in format 1
    bound: NDArray[np.float64]  # (ΣC,) of the error of a float32 answer; 1e-5 in format 1
    users: NDArray[np.void] | None = None  # (V,) of schema.user_dtype, where it has user features
    user: NDArray[np.int32] | None = None  # (R,) rows of ``users``; −1: no record
    features: NDArray[np.void] | None = None  # (R,) a field per request feature, where there are

    def requests(self) -> Iterator[GoldenRequest]:
        return map(self._request, range(len(self.names)))

    def _request(self, i: int) -> GoldenRequest:
        h = slice(self.history_offsets[i], self.history_offsets[i + 1])
        c = slice(self.candidate_offsets[i], self.candidate_offsets[i + 1])
        return GoldenRequest(
            str(self.names[i]),
            self.history[h],
            self.candidates[c],
            self.context[c],
            self.probability[c],
            self._user(i),
            {} if self.features is None else by_name(self.features[i]),
        )

    def _user(self, i: int) -> NDArray[np.void] | None:
        if self.users is None or self.user is None or self.user[i] < 0:
            return None
        return self.users[self.user[i] :][:1]

    def compare(self, model: Ranks) -> Difference:
        """Run ``model`` on every request; return the errors. NaN counts as infinite."""
        vectors, answers = model.items(self.items), []
        for request in self.requests():
            history = model.history(vectors.vector[request.history])
            chosen = model.in_context(vectors.take(request.candidates), request.context)
            user = model.user(request.user, request.features)
            answers.append(model.exact(chosen, history, user))
        return self.difference(np.concatenate(answers))

    def difference(self, answer: NDArray[np.floating]) -> Difference:
        """Compare answers (ΣC,) with the network's. NaN counts as infinite."""
        error = np.abs(answer.astype(np.float64) - self.probability)
        error = np.where(np.isnan(error), np.inf, error)
        worst = int((error / np.maximum(self.bound, 1e-300)).argmax())
        i = int(np.searchsorted(self.candidate_offsets, worst, side="right")) - 1
        request = self._request(i)
        place, digits = worst - int(self.candidate_offsets[i]), 7 if answer.itemsize == 4 else 13
        return Difference(
            float(error.max()),
            f"{request.name}: candidate {place} of {len(request.candidates)}, history of "
            f"{len(request.history)}, context {request.context[place].tolist()}: "
            f"{answer[worst]:.{digits}f} against {self.probability[worst]:.{digits}f}",
            len(self.probability),
            float(error[worst]),
            float(self.bound[worst]),
        )

    def save(self, path: Path) -> None:
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Load golden answers. Raises BundleError for damaged or oversized ones: they are read in
        the serving process, whose memory has no limit of its own."""
        try:
            arrays = npz.read(path, (f.name for f in fields(cls)), MOST_BYTES, OPTIONAL)
            arrays.setdefault("bound", np.full(arrays["probability"].shape, TOLERANCE))
            golden = cls(**arrays)
        except UNREADABLE as error:
            raise BundleError(
                f"{path}: golden answers cannot be read: {said(error)}; "
                "rebuild the bundle with `python -m model_export build`"
            ) from error
        for fault in golden._faults():
            raise BundleError(
                f"{path}: {fault}; rebuild the bundle with `python -m model_export build`"
            )
        return golden

    def _faults(self) -> Iterator[str]:
        """Yield faults in order: later checks rely on the earlier ones."""
        for name, dimensions, kinds in _LAYOUT:
            array = getattr(self, name)
            if array is None:
                continue
            if array.ndim != dimensions or array.dtype.kind not in kinds:
                yield f"{name}: unexpected {array.ndim}-dimensional {array.dtype}"
        for name, most in (("items", MOST_ITEMS), ("names", MOST_REQUESTS)):
            if len(getattr(self, name)) > most:
                yield f"{name}: {len(getattr(self, name)):,}, at most {most:,} are allowed"
        if not len(self.probability):
            yield "probability: 0 golden answers, so nothing would be compared"
        for name in ("candidates", "context"):
            if len(getattr(self, name)) != len(self.probability):
                count = len(getattr(self, name))
                yield f"{name}: {count} rows for {len(self.probability)} golden answers"
        for name, offsets, positions, least, most in (
            ("history", self.history_offsets, self.history, 0, MAX_HISTORY),
            ("candidate", self.candidate_offsets, self.candidates, 1, MOST_CANDIDATES),
        ):
            place = f"{name}_offsets"
            if len(offsets) != len(self.names) + 1:
                yield f"{place}: {len(offsets)} offsets for {len(self.names)} requests"
            if offsets[0] != 0 or offsets[-1] != len(positions):
                yield f"{place}: {offsets[0]} to {offsets[-1]}, not 0 to {len(positions)}"
            counts = np.diff(offsets)
            wrong = np.flatnonzero(counts < least), np.flatnonzero(counts > most)
            for i in np.concatenate(wrong)[:1]:
                yield f"{place}: request {i} has {counts[i]} items"
            for i in np.flatnonzero((positions < 0) | (positions >= len(self.items)))[:1]:
                yield f"{name} {i}: position {positions[i]} of {len(self.items)} items"
        yield from self._user_faults()
        if len(self.bound) != len(self.probability):
            yield f"bound: {len(self.bound)} rows for {len(self.probability)} golden answers"
        if not np.all((self.bound >= 0) & (self.bound < np.inf)):
            yield "bound: negative or not finite"

    def _user_faults(self) -> Iterator[str]:
        if (self.users is None) != (self.user is None):
            yield "users and user: one of them without the other"
        for name, array in (("user", self.user), ("features", self.features)):
            if array is not None and len(array) != len(self.names):
                yield f"{name}: {len(array)} rows for {len(self.names)} requests"
        if self.users is not None and self.user is not None:
            if len(self.users) > MOST_REQUESTS:
                yield f"users: {len(self.users):,}, at most {MOST_REQUESTS:,} are allowed"
            for i in np.flatnonzero((self.user < -1) | (self.user >= len(self.users)))[:1]:
                yield f"user {i}: position {self.user[i]} of {len(self.users)} users"


def by_name(row: Any) -> dict[str, float]:
    """One record's values by field."""
    return {name: row[name].item() for name in row.dtype.names or ()}


# array, number of dimensions, allowed kinds of dtype
_LAYOUT = (
    ("items", 1, "V"),
    ("names", 1, "U"),
    ("history", 1, "i"),
    ("history_offsets", 1, "i"),
    ("candidates", 1, "i"),
    ("candidate_offsets", 1, "i"),
    ("context", 2, "i"),
    ("probability", 1, "f"),
    ("bound", 1, "f"),
    ("users", 1, "V"),
    ("user", 1, "i"),
    ("features", 1, "V"),
)
