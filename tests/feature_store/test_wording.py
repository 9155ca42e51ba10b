"""Errors of libraries and of the operating system, in the words of our messages."""

from __future__ import annotations

import enum
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from feature_store.schema import FeatureSchema, SchemaError
from feature_store.wording import with_file, worded

LIBRARY = ("should", "Value error", "pydantic", "visit", "Errno", "permitted", "required")


class Sizes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: int = Field(default=1, ge=1, le=64)
    rate: float = Field(default=0.1, gt=0, lt=1, allow_inf_nan=False)
    on: bool = False
    name: str = Field(default="a", pattern="^[a-z]+$", max_length=4)
    kind: Literal["a", "b"] = "a"
    list: tuple[int, ...] = Field(default=(1,), min_length=1, max_length=2)
    when: AwareDatetime | None = None
    wrapped: dict[str, int] = {}

    @field_validator("kind")
    @classmethod
    def _not_b(cls, kind: str) -> str:
        if kind == "b":
            raise ValueError("b is reserved; use a")
        return kind


class Letter(enum.Enum):
    A = "a"


def fault(kind: Any, value: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"rows": "x"}, "rows: not an integer"),
        ({"rows": 1.5}, "rows: not an integer"),
        ({"rows": 0}, "rows: must be at least 1"),
        ({"rows": 65}, "rows: must be at most 64"),
        ({"rate": 0}, "rate: must be above 0"),
        ({"rate": 1}, "rate: must be below 1"),
        ({"rate": "nan"}, "rate: not finite"),
        ({"rate": None}, "rate: not a number"),
        ({"on": "maybe"}, "on: neither true nor false"),
        ({"name": 3}, "name: not text"),
        ({"name": "A"}, "name: must match ^[a-z]+$"),
        ({"name": "abcde"}, "name: more than 4 characters"),
        ({"kind": "c"}, "kind: must be 'a' or 'b'"),
        ({"kind": "b"}, "kind: b is reserved; use a"),
        ({"list": []}, "list: holds 0, and must hold at least 1"),
        ({"list": [1, 2, 3]}, "list: holds more than 2"),
        ({"list": 3}, "list: not a list"),
        ({"when": datetime(2026, 1, 1)}, "when: has no time zone"),
        ({"when": "x"}, "when: not a time"),
        ({"wrapped": 3}, "wrapped: not a mapping"),
        ({"wrapped": {"a": "x"}, "rows": 0}, "rows: must be at least 1; wrapped.a: not an integer"),
        ({"other": 3}, "other: unknown name"),
        (3, "not a mapping"),
    ],
)
def test_what_pydantic_refuses_is_worded_as_ours(value: object, words: str) -> None:
    said = worded(fault(Sizes, value))
    assert said == words
    assert not [word for word in LIBRARY if word in said]


def test_a_missing_name_and_content_that_is_not_json_are_named() -> None:
    class Holder(BaseModel):
        sizes: Sizes

    assert worded(fault(Holder, {})) == "sizes: missing"
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate_json(b'{"sizes": ')
    assert worded(caught.value).startswith("not JSON: EOF while parsing")
    assert worded(fault(Letter, "b")) == "must be 'a'"


def test_what_has_no_words_of_ours_is_quoted() -> None:
    said = worded(fault(Annotated[set[int], Field()], 3))
    assert said == 'not valid: "Input should be a valid set"'


def test_yaml_names_line_and_column_on_one_line() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_load("a: [1,\n")
    assert worded(caught.value) == (
        "not YAML: line 2, column 1: while parsing a flow node expected the node content, "
        "but found '<stream end>'"
    )
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_load("a: \x00")
    assert "\n" not in worded(caught.value)


def test_the_operating_systems_errors_name_the_file_and_no_number(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Errno") as caught:
        (tmp_path / "absent").read_bytes()
    assert worded(caught.value) == "No such file or directory"
    assert with_file(caught.value) == f"{tmp_path / 'absent'}: No such file or directory"
    assert with_file(OSError("QIN_PORT: taken")) == "QIN_PORT: taken"


def test_a_schema_that_cannot_be_read_names_its_file_once(tmp_path: Path) -> None:
    for content, words in (
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "cannot be read: not UTF-8 text"),
        (b"a: [1,\n", "not YAML: line 2, column 1: .*"),
        (
            b"item: [{name: a, kind: bogus}]",
            "name: missing; .*'kind' is 'bogus', none of .*",
        ),
    ):
        file = tmp_path / "schema.yaml"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SchemaError, match=rf"^{file}: {words}$") as caught:
            FeatureSchema.read(file)
        assert not [word for word in LIBRARY if word in str(caught.value)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("{a: " * 3_000, "nested too deeply"),
        ("name: !!timestamp x", "a value is not of the type that its form or tag names"),
        ("name: 2020-99-99", "a value is not of the type that its form or tag names"),
        ("name: " + "9" * 5_000, "a value is not of the type that its form or tag names"),
    ],
)
def test_a_schema_that_the_yaml_library_fails_on_is_refused(content: str, words: str) -> None:
    with pytest.raises(SchemaError, match=rf"^s: not YAML: {words}$"):
        FeatureSchema.from_yaml(content, source="s")
