"""Dashboard and alerts ask for metrics that there are, and the run book knows every alert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import feature_store.errors
from service.api.gate import SCORING
from tests.deploy.queries import DEPLOY, ROOT, faults

ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/qin.json").read_text())
ADAPTER = yaml.safe_load((DEPLOY / "kubernetes/prometheus-adapter.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']} {target['refId']}", target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def queries() -> Iterator[tuple[str, str]]:
    yield from ((f"alert {rule['alert']}", rule["expr"]) for rule in RULES)
    yield from dashboard_queries()
    for rule in ADAPTER["rules"]["custom"]:
        yield f"adapter {rule['name']['as']}", rule["metricsQuery"]
        yield f"adapter {rule['name']['as']} series", rule["seriesQuery"]


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_a_query_asks_for_what_there_is(where: str, query: str) -> None:
    assert faults(query) == []


def test_a_query_for_what_there_is_not_is_found() -> None:
    assert faults("rate(qin_request_total[5m])") == ["no metric qin_request_total"]
    assert faults('qin_ready{route="/"} == 0') == ["qin_ready has no label route"]


def test_every_alert_has_its_section_in_the_run_book_and_says_where() -> None:
    book = (ROOT / "docs/runbook.md").read_text().partition("\n## When an alert fires\n")[2]
    book = book.partition("\n## ")[0]
    sections = re.findall(r"^### (\w+)$", book, re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_what_an_alert_compares_has_values_that_the_code_gives() -> None:
    """Values of labels are strings to PromQL: a misspelt one would never fire."""
    code = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    errors = {name for name in vars(feature_store.errors) if name.startswith("Store")}
    found = [v for _, query in queries() for v in re.findall(r'\w+=~?"([\w/|-]+)"', query)]
    given = {value for values in found for value in values.split("|")}
    given -= {"qin", *errors}
    assert given == {v for v in given if f'"{v}"' in code}


def test_what_is_asked_about_scores_is_asked_about_every_route_that_scores() -> None:
    asked = [route for _, query in queries() for route in re.findall(r'route=~?"([^"]+)"', query)]
    assert len(asked) > 10
    for route in asked:
        assert all(re.fullmatch(route, scoring) for scoring in SCORING), route


def test_histories_that_are_read_with_the_users_record_are_watched_too() -> None:
    """Where a model has user features, both are one round trip: ``user``."""
    [slow] = [rule["expr"] for rule in RULES if rule["alert"] == "QinStoreSlow"]
    [operations] = re.findall(r'operation=~"([^"]+)"', slow)
    assert set(operations.split("|")) == {"history", "user"}


def test_an_answer_without_history_and_record_is_one_degraded_answer() -> None:
    [degraded] = [rule["expr"] for rule in RULES if rule["alert"] == "QinDegraded"]
    assert degraded.startswith("max(sum by (what)")


def test_a_table_that_evicts_is_full_too() -> None:
    [full] = [rule["expr"] for rule in RULES if rule["alert"] == "QinItemTableFull"]
    assert {"evicted", "refused"} == set(re.findall(r"qin_item_table_(\w+)_total", full))


def test_the_autoscalers_metrics_have_a_value_without_traffic() -> None:
    """While one is missing, it removes no pod. A comparison would leave
    nothing, 0 / 0 no number."""
    for rule in ADAPTER["rules"]["custom"]:
        _, _, divisor = rule["metricsQuery"].partition(" / ")
        assert ">" not in divisor.replace("<<.GroupBy>>", "").replace("<<.LabelMatchers>>", "")
        assert "clamp_min(" in divisor or "rate(" not in divisor


def test_a_process_that_has_no_version_yet_is_not_one_of_another_version() -> None:
    """Its ``qin_model_info`` has no label."""
    asked = [q for _, query in queries() for q in re.findall(r"qin_model_info(\{.*?\})?", query)]
    assert len(asked) == 2
    assert all('version!=""' in selector for selector in asked)


def test_the_dashboard_is_provisioned_with_its_source() -> None:
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/qin.yml").read_text())
    uids = {t["datasource"]["uid"] for p in DASHBOARD["panels"] for t in p.get("targets", ())}
    assert uids == {source["uid"] for source in sources}
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"


def test_panels_do_not_overlap_and_ids_are_unique() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
