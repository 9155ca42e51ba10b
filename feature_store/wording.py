"""Words the errors of pydantic, PyYAML and the operating system as our messages do.

A library's own words (``Input should be …``, ``[Errno 13]``, links to its pages) address the
programmer that calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KINDS = {  # the first word of a type's error: ``int_type``, ``int_parsing``, …
    "int": "not an integer",
    "float": "not a number",
    "decimal": "not a number",
    "bool": "neither true nor false",
    "string": "not text",
    "bytes": "not text",
    "path": "not a path",
    "datetime": "not a time",
    "dict": "not a mapping",
    "model": "not a mapping",
    "list": "not a list",
    "tuple": "not a list",
}
_REASONS = {
    "missing": "missing",
    "extra_forbidden": "unknown name",
    "invalid_key": "a name that is not text",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "not finite",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "fewer than {min_length} characters",
    "string_too_long": "more than {max_length} characters",
    "too_short": "holds {actual_length}, and must hold at least {min_length}",
    "too_long": "holds more than {max_length}",
    "union_tag_invalid": "{discriminator} is {tag!r}, none of {expected_tags}",
    "union_tag_not_found": "{discriminator} is missing",
    "timezone_aware": "has no time zone",
    "json_invalid": "not JSON: {error}",
    "value_error": "{error}",
}


def worded(error: Exception) -> str:
    """The reason alone: without a file name, an error number or a library's address."""
    match error:
        case ValidationError():
            return "; ".join(f"{place(fault)}{reason(fault)}" for fault in details(error))
        case yaml.MarkedYAMLError() if error.problem_mark is not None:
            mark = error.problem_mark
            words = " ".join(filter(None, (error.context, error.problem)))
            return f"not YAML: line {mark.line + 1}, column {mark.column + 1}: {words}"
        case yaml.YAMLError():
            return f"not YAML: {' '.join(str(error).split())}"
        case UnicodeDecodeError():
            return "not UTF-8 text"
        case UnicodeEncodeError():  # a path, which may be any bytes; a URL may have a password
            name = "a URL" if "://" in error.object else error.object
            return f"{name}: not UTF-8; give another name"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return str(error)


@contextmanager
def reading_yaml() -> Iterator[None]:
    """Raise YAMLError for what the library fails on otherwise: deep nesting, and values that are
    not of the type that their form or tag names."""
    try:
        yield
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (AttributeError, ValueError) as error:
        raise yaml.YAMLError("a value is not of the type that its form or tag names") from error


def with_file(error: Exception) -> str:
    """As ``worded``, after the file that an error of the operating system names."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return worded(error)


def details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False)


def place(fault: ErrorDetails) -> str:
    """``sizes.rows: ``; empty for the whole."""
    return "".join((".".join(map(str, fault["loc"])), ": ")) if fault["loc"] else ""


def reason(fault: ErrorDetails) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if template := _REASONS.get(kind):
        return template.format(**{name: _number(value) for name, value in context.items()})
    return _KINDS.get(kind.partition("_")[0], f'not valid: "{fault["msg"]}"')


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value
