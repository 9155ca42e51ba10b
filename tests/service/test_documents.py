"""What is written about the service is what it does: settings, metrics, the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.problems import SLUGS
from service.api.score_models import ANSWER_EXAMPLE, REQUEST_EXAMPLES, ProblemDocument, ScoreAnswer
from service.application import build_application
from service.errors import FRAMEWORK, tree
from service.settings import Settings
from tests.service.access.test_placement import admin_of
from tests.service.in_process import client_of, opened
from tests.service.world import World

DOCS = Path(__file__).parents[2] / "docs"


def table(file: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading."""
    section = re.split(rf"^#+ {heading}$", (DOCS / file).read_text(), flags=re.MULTILINE)[1]
    section = re.split(r"^#", section, flags=re.MULTILINE)[0]
    first = section[section.index("\n|") :].strip().split("\n\n")[0]
    return [[c.strip() for c in row.strip("|").split(" | ")] for row in first.splitlines()[2:]]


def test_the_table_of_settings_is_the_settings_own() -> None:
    expected = [
        [f"`QIN_{name.upper()}`", f"`{field.default}`", field.description]
        for name, field in Settings.model_fields.items()
    ]
    section = re.split(r"^## ", (DOCS / "configuration.md").read_text(), flags=re.MULTILINE)[1]
    assert section.startswith("Settings\n")
    rows = re.findall(r"^\| (`QIN_.*) \|$", section, re.MULTILINE)
    assert [row.split(" | ") for row in rows] == expected


async def test_the_table_of_metrics_is_the_registrys_own(world: World) -> None:
    settings = Settings(bundle=world.models, store=world.store, threads=1)
    async with build_application(settings) as (state, _):
        kept = state.metrics.registry._collector_to_names
        expected = [
            [f"`{family.name}{suffix}`", ", ".join(f"`{n}`" for n in labels), family.documentation]
            for collector in kept
            if (labels := getattr(collector, "_labelnames", None)) is not None
            for family in collector.describe()
            for suffix in [{"counter": "_total", "info": "_info"}.get(family.type, "")]
        ]
    assert table("metrics.md", "Metrics") == expected


def test_the_table_of_problems_is_the_error_trees_own() -> None:
    documented = {row[0].strip("`"): row[1] for row in table("http-api.md", "Problems")}
    assert list(documented) == list(SLUGS)
    assert {e.slug: str(e.status) for e in tree()}.items() <= documented.items()
    assert {slug: str(status) for status, slug in FRAMEWORK.items()}.items() <= documented.items()


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    content: dict[str, Any] = client.get("/openapi.json").json()
    return content


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_of_the_openapi_document_resolves(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_the_openapi_document_shows_the_request_with_its_limits(document: dict[str, Any]) -> None:
    post = document["paths"]["/v1/score"]["post"]
    body = post["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["candidates"]["maxItems"] == 5000
    assert body["schema"]["required"] == ["user_id", "candidates"]
    assert body["schema"]["additionalProperties"] is False
    assert {"400", "404", "413", "422", "429", "503", "504"} <= post["responses"].keys()


def documented_paths(text: str) -> set[str]:
    """Paths that a page names, ``{}`` for each parameter; ``[…]`` may be left out."""
    paths = set()
    for found in re.findall(r"/[\w/.{}\[\]-]*", text):
        for form in (re.sub(r"\[.*?\]", "", found), re.sub(r"[\[\]]", "", found)):
            paths.add(re.sub(r"(?<=/)(\{\w+\}|qin|V)(?=/|$)", "{}", form))
    return paths


async def test_every_route_is_on_the_page_of_the_api(world: World) -> None:
    page = documented_paths((DOCS / "http-api.md").read_text())
    async with (
        opened(world) as state,
        client_of(state) as public,
        admin_of(state) as admin,
    ):
        for client in (public, admin):
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert len(paths) > 5
            assert not sorted({re.sub(r"\{\w+\}", "{}", path) for path in paths} - page)


@pytest.mark.parametrize("name", REQUEST_EXAMPLES)
def test_every_example_of_a_request_is_answered_as_documented(
    client: httpx.Client, name: str
) -> None:
    answer = client.post("/v1/score", json=REQUEST_EXAMPLES[name]["value"])
    assert answer.status_code == 200, answer.text
    ScoreAnswer.model_validate_json(answer.content)
    told = [
        *ANSWER_EXAMPLE,
        *(["explanations"] if "explain" in REQUEST_EXAMPLES[name]["value"] else []),
    ]
    assert list(answer.json()) == told


def test_the_example_of_an_answer_is_one() -> None:
    ScoreAnswer.model_validate(ANSWER_EXAMPLE)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"user_id":1,"candidates":[1],"model_version":"x"}']
)
def test_a_problem_has_no_member_that_is_not_documented(client: httpx.Client, body: bytes) -> None:
    ProblemDocument.model_validate_json(client.post("/v1/score", content=body).content)
