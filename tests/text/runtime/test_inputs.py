"""What is no list of texts or of spans is refused by place and type; it is encoded in no way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from text.runtime.chunks import SpanError
from text.runtime.encoder import TextEncoder
from text.runtime.errors import InputTypeError


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> TextEncoder:
    return TextEncoder.open(bundle)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        ("a text", "texts: str: give a list of texts, even of one: ['a text']"),
        (b"a text", "texts: bytes: give a list of texts"),
        (5, "texts: int: give a list of texts"),
        (None, "texts: NoneType: give a list of texts"),
        ({"a": "text"}, "texts: dict: give a list of texts"),
        ({"a text"}, "texts: set: give a list of texts"),
        ([None], "texts[0]: NoneType: must be a str"),
        (["tree", "house", b"tree"], "texts[2]: bytes: must be a str"),
        (["tree", 5], "texts[1]: int: must be a str"),
        ([["tree"]], "texts[0]: list: must be a str"),
        (np.array([["tree"]]), "texts[0]: ndarray: must be a str"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(encoder: TextEncoder, texts: Any, fault: str) -> None:
    with pytest.raises(InputTypeError) as refused:
        encoder.encode(texts)
    assert isinstance(refused.value, TypeError)
    assert str(refused.value) == fault


@pytest.mark.parametrize(
    "texts", [("tree", "house"), np.array(["tree", "house"]), iter(["tree", "house"])]
)
def test_other_collections_in_an_order_are_encoded(encoder: TextEncoder, texts: Any) -> None:
    found = encoder.encode(texts).vectors
    assert np.abs(found - encoder.encode(["tree", "house"]).vectors).max() <= 2e-6


@pytest.mark.parametrize("text", [5, None, ["tree"], b"tree"])
def test_chunks_are_of_one_text(encoder: TextEncoder, text: Any) -> None:
    with pytest.raises(InputTypeError, match=rf"^text: {type(text).__name__}: must be a str$"):
        encoder.chunks(text, [(0, 1)])


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        ((0, 5.5), "[0, 5.5)"),
        ((0.0, 5), "[0.0, 5)"),
        ((False, 5), "[False, 5)"),
        ((0, None), "[0, None)"),
        (("0", "5"), "['0', '5')"),
        ((0,), "(0,)"),
        ((0, 1, 2), "(0, 1, 2)"),
        (5, "5"),
        (None, "None"),
        ("05", "'05'"),
    ],
)
def test_a_span_of_other_than_two_integers_is_named(
    encoder: TextEncoder, span: Any, shown: str
) -> None:
    with pytest.raises(SpanError) as refused:
        encoder.chunks("the tree", [(0, 3), span])
    assert str(refused.value) == f"span 1 {shown}: must be two integers, (start, end)"
    assert refused.value.index == 1


@pytest.mark.parametrize("spans", [5, None, "0-5", {(0, 5)}])
def test_spans_are_a_list(encoder: TextEncoder, spans: Any) -> None:
    fault = rf"^spans: {type(spans).__name__}: give a list of spans, as in \[\(0, 5\)\]$"
    with pytest.raises(InputTypeError, match=fault):
        encoder.chunks("the tree", spans)


def test_numbers_of_numpy_are_spans(encoder: TextEncoder) -> None:
    found = encoder.chunks("the tree", np.array([[0, 3], [4, 8]]))  # type: ignore[arg-type]
    expected = encoder.chunks("the tree", [(0, 3), (4, 8)])
    assert np.array_equal(found.vectors, expected.vectors)
    mixed: list[Any] = [np.array([0, 3]), [4, 8], (0, 8)]
    assert encoder.chunks("the tree", mixed).overlapping.all()


def test_a_precision_that_is_none_names_the_choices(bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"^precision: 'fp16': must be fp32 or int8$"):
        TextEncoder.open(bundle, precision="fp16")  # type: ignore[arg-type]


def test_white_space_alone_has_a_vector(encoder: TextEncoder) -> None:
    encoded = encoder.encode([" ", "\n\t"])
    assert np.abs(np.linalg.norm(encoded.vectors, axis=1) - 1).max() <= 1e-6
