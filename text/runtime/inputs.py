"""Checks the types of what callers give: a str is a sequence of texts, too, one per character."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from text.runtime.errors import InputTypeError, shown

UNORDERED = (str, bytes, bytearray, Mapping, Set)  # or of characters


def texts_of(given: Any) -> list[str]:
    """Return the texts of a list or another collection in an order. Raises InputTypeError."""
    if isinstance(given, UNORDERED) or not isinstance(given, Iterable):
        hint = f", even of one: [{shown(given)}]" if isinstance(given, str) else ""
        raise InputTypeError("texts", given, f"give a list of texts{hint}")
    texts = list(given)
    for index, text in enumerate(texts):
        check_text(f"texts[{index}]", text)
    return texts


def check_text(name: str, given: Any) -> None:
    """Raise InputTypeError for what is no str."""
    if not isinstance(given, str):
        raise InputTypeError(name, given, "must be a str")


def spans_of(given: Any) -> list[Any]:
    """Return the spans of a list or another collection in an order, lists as tuples, unchecked.

    Raises InputTypeError.
    """
    if isinstance(given, UNORDERED) or not isinstance(given, Iterable):
        raise InputTypeError("spans", given, "give a list of spans, as in [(0, 5)]")
    return [tuple(span) if isinstance(span, list | np.ndarray) else span for span in given]


def is_pair(span: Any) -> bool:
    """Tell whether this is a tuple or list of two."""
    return isinstance(span, tuple | list) and len(span) == 2


def is_integer(value: Any) -> bool:
    """Tell whether this is an integer, and no bool, which Python counts as one."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
