"""Writes Grafana's dashboards, in ``deploy/dashboards``, from the panels in ``dashboard_panels.py``.

uv run python tools/dashboards.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard_panels import DASHBOARDS

if TYPE_CHECKING:
    from dashboard_panels import Dashboard, Panel

FOLDER = Path(__file__).parents[1] / "deploy" / "dashboards"

_COLUMNS = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rendered(dashboard: Dashboard) -> str:
    """What Grafana imports."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows.items():
        panels.append(_at(len(panels), 0, top, _COLUMNS, 1) | {"type": "row", "title": title, "panels": []})
        top += 1
        width, height = _COLUMNS // len(row), 4 if row[0].stat else 8
        for column, panel in enumerate(row):
            panels.append(_at(len(panels), column * width, top, width, height) | _panel(panel))
        top += height
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "type": "query",
            "datasource": _DATASOURCE,
            "query": f'label_values(up{{job=~".*{dashboard.job}.*"}}, instance)',
            "multi": True,
            "includeAll": True,
            "current": {"text": "All", "value": "$__all"},
            "refresh": 2,
        },
    ]
    written = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["taskbridge"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
    return json.dumps(written, indent=1) + "\n"


def _at(number: int, left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number + 1, "gridPos": {"x": left, "y": top, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bad is not None:
        steps.append({"color": "red", "value": panel.bad})
    style = (
        {}
        if panel.stat
        else {"custom": {"fillOpacity": 10, "stacking": {"mode": "normal" if panel.stacked else "none"}}}
    )
    return {
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend or "__auto"}
            for number, (legend, expression) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}} | style,
            "overrides": [],
        },
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in DASHBOARDS:
        (FOLDER / f"{each.uid}.json").write_text(rendered(each), "utf-8")
