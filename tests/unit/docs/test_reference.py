"""The reference is what the code says, and leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reference import DOCS, PAGES
from reference_pages import settings
from reference_pages.commands import SHARED, commands
from taskbridge.center import settings as center_settings
from taskbridge.center.settings import settings_class
from taskbridge.cli import program
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.edge import app
from taskbridge.edge.settings import EdgeSettings
from taskbridge.local import stack
from taskbridge.reconcile import settings as reconcile_settings
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.runtime import kafka
from taskbridge.schemas import topics
from taskbridge.streams import worker
from taskbridge.streams.settings import StreamsSettings
from taskbridge.webhooks.settings import WebhooksSettings

REFERENCE = {path.name: path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md")}
PACKAGES = [
    Path(str(part.__file__)).parent
    for part in (topics, kafka, app, worker, center_settings, reconcile_settings, program, stack)
]
ALSO = "".join(re.findall(r"^Also .*$", REFERENCE["settings.md"], re.MULTILINE))
SOURCES = {path: path.read_text("utf-8") for package in PACKAGES for path in package.rglob("*.py")}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_has_it(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run: make docs"


def test_every_page_of_the_reference_but_the_glossary_is_written_from_the_code() -> None:
    written = {f"reference/{path.name}" for path in (DOCS / "reference").iterdir()} - {"reference/glossary.md"}
    assert written <= set(PAGES)


def test_every_setting_has_its_meaning() -> None:
    rows = dict(re.findall(r"^- `(\w+)`(?: \(.+?\))?: (\S.*)$", REFERENCE["settings.md"], re.MULTILINE))
    for model in (
        EdgeSettings,
        StreamsSettings,
        settings_class(),
        WebhooksSettings,
        ReconcileSettings,
        ApprovalsSettings,
    ):
        prefix = model.model_config.get("env_prefix", "")
        for field in map(str.upper, model.model_fields):
            assert f"{prefix}{field}" in rows or (f"SERVICE_{field}" in rows and f"`{prefix}{field}`" in ALSO)


def test_every_variable_that_the_code_reads_is_a_setting() -> None:
    named = {name for text in SOURCES.values() for name in re.findall(r'"(TASKBRIDGE_[A-Z_]+[A-Z])"', text)}
    assert len(named) > 5
    assert named - settings.INTERNAL <= set(settings.SHARED)


def test_every_command_and_each_of_its_options_is_explained() -> None:
    found = list(commands())
    assert len(found) > 20
    assert {"taskbridge webhooks", "taskbridge webhooks list"} <= dict(found).keys(), "also a group that runs alone"
    for name, command in found:
        assert command.help, name
        assert [each.opts for each in command.params if not each.help] == [], name
        (line,) = re.findall(rf"^- `{name}`: (.+)$", REFERENCE["commands.md"], re.MULTILINE)
        named = {each.opts[0] for each in command.params if each.opts[0].startswith("--")}
        assert [each for each in named - {*SHARED} if each not in line] == []


def test_every_kind_of_problem_is_explained() -> None:
    """However a source names it: as an argument, as a class' own, in the table of statuses, or for the server."""
    patterns = (
        r'\bkind="([a-z-]+)"',
        r'\bkind: ClassVar\[str\] = "([a-z-]+)"',
        r'^    kind = "([a-z-]+)"',
        r'\(\d{3}, "([a-z-]+)"\)',
        r'Refusal\(HTTPStatus\.\w+, "([a-z-]+)"',
    )
    named = {kind for text in SOURCES.values() for each in patterns for kind in re.findall(each, text, re.MULTILINE)}
    assert len(named) >= 15
    assert [kind for kind in sorted(named) if f"- `{kind}` (" not in REFERENCE["problems.md"]] == []


def test_every_metric_that_the_code_names_is_explained() -> None:
    """Whole names, and the streams' own; others that are put together the integration test holds, which scrapes."""
    named = {
        name
        for text in SOURCES.values()
        for name in re.findall(r'"(taskbridge_(?:edge|streams|center|webhooks)_[a-z_]+[a-z])"', text)
    }
    own = next(text for path, text in SOURCES.items() if path.match("streams/monitoring/metrics.py"))
    [namespace] = re.findall(r'^_NAMESPACE = "(\w+)"$', own, re.MULTILINE)
    named |= {f"{namespace}_{name}" for name in re.findall(r'\b(?:counter|gauge|histogram)\(\s*"(\w+)"', own)}
    assert len(named) > 30
    assert [name for name in sorted(named) if f"- `{name.removesuffix('_total')}" not in REFERENCE["metrics.md"]] == []
