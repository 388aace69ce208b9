"""Dashboard and alert rules ask for metrics that exist, by labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from server.core.metric_names import METRICS, PROCESS
from tests.fakes import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
ALERTS = (FOLDER / "alerts.yml").read_text("utf-8")
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
LABELS = {metric.name: set(metric.labels) for metric in METRICS} | {name: set() for name in PROCESS}
TARGET = {"instance", "job"}
"""Labels that Prometheus adds."""

SERIES = re.compile(r"\b((?:stroke|process)_[a-z_]+)(?:\{([^}]*)\})?")


def list_series() -> dict[str, set[str]]:
    """Every name that there is, with its labels."""
    found = {name: labels | TARGET for name, labels in LABELS.items()} | {"up": TARGET}
    for metric in METRICS:
        if metric.kind == "histogram":
            labels = found.pop(metric.name)
            found |= {f"{metric.name}_bucket": labels | {"le"}, f"{metric.name}_sum": labels}
            found[f"{metric.name}_count"] = labels
    return found


SHOWN = list_series()


def list_rules() -> list[tuple[str, str, str]]:
    """Name, expression and summary of each alert."""
    return re.findall(r'- alert: (\w+)\n +expr: (.+)\n(?:.+\n)+? +summary: "(.+)"', ALERTS)


def list_queries() -> Iterator[tuple[str, str]]:
    """Title and expression of each query of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


EXPRESSIONS = [*((name, text) for name, text, _ in list_rules()), *list_queries()]


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_expression_asks_for_what_exists(name: str, expression: str) -> None:
    """By its name, its labels, and the labels by which it is summed up."""
    series = SERIES.findall(expression)
    known: set[str] = set()
    for metric, selector in series:
        assert metric in SHOWN, metric
        known |= SHOWN[metric]
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= SHOWN[metric], metric
    assert series or expression.startswith("up{")
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= known


def test_every_alert_says_where_and_has_a_severity() -> None:
    """A sentence with the server's name; its labels are those of the expression."""
    rules = list_rules()

    assert len(rules) == ALERTS.count("- alert:") == ALERTS.count("severity:")
    assert len({name for name, _, _ in rules}) == len(rules)
    for _, expression, summary in rules:
        assert "$labels.instance" in summary
        groups = re.findall(r"\bby \(([^)]*)\)", expression)
        known = {label.strip() for label in ",".join(groups).split(",")} if groups else set(TARGET)
        if not groups:
            known = set().union(*(SHOWN[metric] for metric, _ in SERIES.findall(expression)), TARGET)
        assert set(re.findall(r"\$labels\.(\w+)", summary)) <= known


def test_every_metric_is_looked_at() -> None:
    """One that no panel shows and no rule watches need not be there."""
    text = " ".join(expression for _, expression in EXPRESSIONS)

    assert {name for name in LABELS if name not in text} == {"process_virtual_memory_bytes"}


def test_prometheus_looks_where_the_container_shows_them() -> None:
    """The example fits what lies beside it."""
    compose = (ROOT / "deploy" / "container" / "compose.yaml").read_text("utf-8")
    found = re.search(r'targets: \["(\w+):(\d+)"\]', (FOLDER / "prometheus.yml").read_text("utf-8"))

    assert found is not None
    assert f"\n  {found[1]}:\n" in compose
    assert f'STROKE_METRICS_PORT: "{found[2]}"' in compose


def test_dashboard_is_whole() -> None:
    """Panels have ids of their own, do not lie upon each other, and take their data from what is chosen."""
    panels = DASHBOARD["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]

    assert len({panel["id"] for panel in panels}) == len(panels) == len(set(places))
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels if panel["type"] != "row")
    assert '"${datasource}"' in json.dumps(DASHBOARD["templating"])


@pytest.mark.parametrize("command", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_finds_no_fault(command: tuple[str, ...]) -> None:
    """Prometheus' own judgement, where it is installed: files are well formed, and rules do what they should."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus): its judgement is missing")
    checked = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr
