"""Grafana's dashboards query existing metrics in valid PromQL, and show all metrics."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from reference_pages.metrics import CENTER, EDGE, STREAMS
from reference_pages.metrics import metrics as metrics_by_service
from support import needs
from support.wheels import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILES = {each.stem: json.loads(each.read_text("utf-8")) for each in (ROOT / "deploy" / "dashboards").glob("*.json")}
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}


def questions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_dashboards_query_every_metric_and_no_other(metrics: set[str]) -> None:
    asked = {name for each in FILES.values() for name in re.findall(r"taskbridge_\w+", " ".join(questions(each)))}
    assert asked <= metrics
    # A histogram is asked for by one of its series.
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics if name.startswith("taskbridge_")}
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert told - seen == {"taskbridge_edge_build_info"}


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    asked = [question for each in FILES.values() for question in questions(each)]
    for name, value in VARIABLES.items():
        asked = [question.replace(name, value) for question in asked]
    assert not [question for question in asked if "$" in question]
    rules = [{"record": f"question:{number}", "expr": question} for number, question in enumerate(asked)]
    path = tmp_path / "questions.yml"
    path.write_text(json.dumps({"groups": [{"name": "questions", "rules": rules}]}), "utf-8")
    done = subprocess.run(
        [needs.program("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("uid", FILES)
def test_no_panel_lies_on_another_or_has_its_number(uid: str) -> None:
    panels = FILES[uid]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    squares = [
        (at["x"] + column, at["y"] + row)
        for at in (panel["gridPos"] for panel in panels)
        for column in range(at["w"])
        for row in range(at["h"])
    ]
    assert len(set(squares)) == len(squares)
    assert max(column for column, _ in squares) < 24


def test_each_service_exports_process_metrics() -> None:
    asked = {name for each in FILES.values() for name in re.findall(r"process_\w+", " ".join(questions(each)))}
    for service in (EDGE, STREAMS, CENTER):
        told = {each.name + ("_total" if each.kind == "counter" else "") for each in metrics_by_service()[service]}
        assert asked <= told, service
