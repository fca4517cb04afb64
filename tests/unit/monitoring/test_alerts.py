"""Every alert queries existing metrics, and links to its section of the runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[3]
FILES = {
    service: (ROOT / "deploy" / "alerts" / f"taskbridge-{service}.rules.yml").read_text("utf-8")
    for service in ("edge", "streams", "center", "webhooks", "reconcile", "approvals", "land")
}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")

# The whole syntax that the file uses: there is no YAML reader among our dependencies.
HEAD = "groups:\n  - name: taskbridge-{}\n    rules:\n"
RULE = re.compile(
    r"      - alert: (?P<alert>[A-Z][A-Za-z]+)\n"
    r"        expr: (?P<expr>[^\n#]+)\n"
    r"(?:        for: \d+[smhd]\n)?"
    r"        labels:\n"
    r"          severity: (?:page|ticket)\n"
    r"        annotations:\n"
    r'          summary: "[^"\n]+\."\n'
    r'          runbook: "docs/runbook\.md#(?P<section>[a-z]+)"\n'
)


def rules() -> list[Mapping[str, str]]:
    return [found.groupdict() for text in FILES.values() for found in RULE.finditer(text)]


@pytest.mark.parametrize("service", FILES)
def test_the_file_holds_nothing_but_well_formed_rules(service: str) -> None:
    text = re.sub(r"^#.*\n", "", FILES[service], flags=re.MULTILINE)
    head = HEAD.format(service)
    assert text.startswith(head)
    assert RULE.sub("", text.removeprefix(head)) == ""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 10


def test_a_plain_yaml_value_may_be_read_in_one_way_only() -> None:
    # ": " would begin a mapping in an unquoted value, and these at its start have meanings of their own.
    assert not [rule["expr"] for rule in rules() if ": " in rule["expr"] or rule["expr"][0] in "\"'{[&*!|>%@`"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_queries_existing_metrics(rule: Mapping[str, str], metrics: set[str]) -> None:
    asked = set(re.findall(r"taskbridge_\w+", rule["expr"]))
    assert asked or rule["expr"].startswith("up{")
    assert asked <= metrics


def test_every_alert_has_its_section_of_the_runbook_and_the_other_way_round() -> None:
    sections = re.findall(r"^## (\w+)\n\n\*\*Means\*\* ", RUNBOOK, re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    assert [section.lower() for section in sections] == [rule["section"] for rule in rules()]
    for part in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]:
        assert "\n**Look** " in part
        assert "\n**Do** " in part


def test_what_is_refused_has_an_outcome_that_an_alert_knows() -> None:
    source = "".join(
        (ROOT / "edge" / "src" / "taskbridge" / "edge" / name).read_text("utf-8")
        for name in ("verification/signature.py", "server/admission.py")
    )
    reasons = set(re.findall(r'nverified\("([a-z-]+)"', source)) | {"other-corp", "wrong-sign"}
    (watched,) = [rule["expr"] for rule in rules() if rule["alert"] == "EdgeCallbacksUnverified"]
    assert reasons - {"no-sign"} <= set(re.findall(r"[a-z]+(?:-[a-z]+)+", watched))
