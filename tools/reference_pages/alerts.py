"""The page of all alerts, from the rule files that Prometheus reads."""

from __future__ import annotations

import re
from pathlib import Path

from reference_pages.markdown import listed, page

FOLDER = Path(__file__).parents[2] / "deploy" / "alerts"

_INTRODUCTION = """\
The Prometheus rules, with their expressions, are in `deploy/alerts`. Each alert links to the section of the
[runbook](../runbook.md) that says what to do. Severity `page`: callbacks are being lost, or soon will be, or people do
not see their tasks. Severity `ticket`: handle it on the next working day."""

_RULE = re.compile(
    r"- alert: (?P<name>\w+)\n"
    r" +expr: [^\n]+\n"
    r"(?: +for: (?P<duration>\w+)\n)?"
    r" +labels:\n +severity: (?P<severity>\w+)\n"
    r' +annotations:\n +summary: "(?P<summary>[^"]+)"\n'
    r' +runbook: "docs/(?P<runbook>[^"]+)"\n'
)


def alerts_page() -> str:
    return page("Alerts", _INTRODUCTION, *(_section(path) for path in sorted(FOLDER.glob("*.yml"))))


def _section(path: Path) -> str:
    rows = [
        (
            f"[{each['name']}](../{each['runbook']}) ({each['severity']}, {_after(each['duration'])})",
            each["summary"],
        )
        for each in _RULE.finditer(path.read_text("utf-8"))
    ]
    return f"## {path.name}\n\n{listed(rows)}"


def _after(duration: str | None) -> str:
    return f"after {duration}" if duration else "at once"
