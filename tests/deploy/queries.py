"""The metrics that docs/metrics.md has, and what a PromQL query asks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# Of every target: Prometheus adds them, or prometheus_client's collectors.
OF_TARGETS = {"job", "instance", "namespace", "pod"}
OTHERS = {
    "up": set[str](),
    "process_cpu_seconds_total": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_open_fds": set[str](),
}
OWN_LABELS = {"qin_model_info": {"version"}}
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "<<.GroupBy>>": "pod"}


def documented() -> dict[str, set[str]]:
    """Series name -> its labels. A test of the service holds that table to the code."""
    series = dict(OTHERS)
    rows = re.findall(r"^\| `(qin_\w+)` \| (.*?) \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    for name, labels in rows:
        found = set(re.findall(r"`(\w+)`", labels)) | OWN_LABELS.get(name, set())
        series[name] = found
        for suffix in ("_sum", "_count"):
            series[name + suffix] = found
        series[name + "_bucket"] = found | {"le"}
    return series


def faults(query: str) -> list[str]:
    """What of it does not exist. ValueError when it is no PromQL."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    query = query.replace(", <<.LabelMatchers>>", "").replace("<<.LabelMatchers>>", "")
    known, found = documented(), list[str]()
    selectors = [node for node in _nodes(promql_parser.parse(query)) if _is_selector(node)]
    if not selectors:
        found.append("no metric")
    for selector in selectors:
        if selector.name not in known:
            found.append(f"no metric {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in known[selector.name] | OF_TARGETS:
                found.append(f"{selector.name} has no label {matcher.name}")
    return found


def _is_selector(node: Any) -> bool:
    return isinstance(node, promql_parser.VectorSelector)


def _nodes(node: Any) -> list[Any]:
    """The expression and all within it."""
    if isinstance(node, promql_parser.MatrixSelector):
        return [node, *_nodes(node.vector_selector)]
    children = [getattr(node, name, None) for name in ("expr", "lhs", "rhs")]
    children += getattr(node, "args", None) or []
    return [node, *(found for child in children if child is not None for found in _nodes(child))]
