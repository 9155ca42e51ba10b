"""Types of ids in requests and answers: numbers, the same in decimal strings, and texts.

A decimal string is for clients whose numbers are floats, as JavaScript's, which are exact to 2⁵³
only. Texts are the ids of mapped stores (``feature_store.text_ids``).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, ValidationError, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from feature_store.contract import MAX_ID
from feature_store.text_ids import LONGEST

INT64 = {"format": "int64"}  # generated clients take 32 bits without it
NUMBER: dict[str, Any] = {"type": "integer", **INT64, "minimum": 0, "maximum": MAX_ID}
LARGEST = str(MAX_ID)
DIGITS = len(LARGEST)


def _pattern() -> str:
    """Regular expression of the numbers up to the largest id, leading zeros included."""
    smaller = [  # the first digits of the largest, a smaller one, then any
        f"{LARGEST[:at]}[0-{int(digit) - 1}][0-9]{{{DIGITS - 1 - at}}}"
        for at, digit in enumerate(LARGEST)
        if digit != "0"
    ]
    return f"^({'|'.join([f'[0-9]{{1,{DIGITS - 1}}}', *smaller, LARGEST])})$"


TEXT: dict[str, Any] = {"type": "string", "pattern": _pattern()}
EITHER: dict[str, Any] = {"anyOf": [NUMBER, TEXT]}
MAPPED: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": LONGEST}
NO_TEXT = f"Input should be a string of 1 to {LONGEST} characters: the ids of this store are texts"


def is_decimal(text: str) -> bool:
    """Whether the text is a number of at most as many digits as the largest id has."""
    return len(text) <= DIGITS and text.isascii() and text.isdecimal()


def number_of(value: Any) -> Any:
    """Return the number of a decimal string, and any other value as it is."""
    return int(value) if isinstance(value, str) and is_decimal(value) else value


Id = Annotated[int, Field(ge=0, le=MAX_ID, json_schema_extra=INT64)]
# Each value passes through Python: for requests that hold strings.
Bounded = Annotated[int, Field(ge=0, le=MAX_ID)]  # without a format, which strings have not
NumberOrText = Annotated[Bounded, BeforeValidator(number_of), WithJsonSchema(EITHER)]
AnsweredId = Annotated[int | str, WithJsonSchema({"anyOf": [NUMBER, {"type": "string"}]})]


class _Mapped:
    """Validation of a text id, all of it in pydantic's core; every fault has the same message."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1, max_length=LONGEST)
        return core_schema.custom_error_schema(text, "text_id", custom_error_message=NO_TEXT)


MappedId = Annotated[str, _Mapped()]


def has_text(error: ValidationError) -> bool:
    """Whether a string was given where a number was required."""
    return any(
        fault["type"] == "int_type" and isinstance(fault["input"], str)
        for fault in error.errors(include_url=False, include_context=False)
    )
