"""The whole system on one screen, and the problems that need attention."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from support.browser.fake_operations import overview
from support.browser.fake_task_center import FakeTaskCenter, serving
from taskbridge.cli.program import app
from taskbridge.cli.status import problems_of, screen

if TYPE_CHECKING:
    from collections.abc import Generator

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def shown(found: dict[str, Any]) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(screen(found))
    return console.export_text()


def test_everything_is_on_one_screen() -> None:
    text = shown(overview(NOW))
    assert len(text.splitlines()) <= 24
    for said in (
        "http://10.0.0.21:8400",
        "degraded",
        "128734",
        "212",
        "http://10.0.0.13:8510",
        "53 rejected callbacks",
        "center-1:8500",
        "1635",
    ):
        assert said in text
    assert "2 dead letters (1 undecodable, 1 other-corp)" in text
    assert "a record was parked" in text


def test_problems_come_first() -> None:
    found = overview(NOW, dead_workers=1)
    assert problems_of(found) == [
        "edge http://10.0.0.21:8400 is degraded: Kafka did not acknowledge within 1000 ms",
        "worker http://10.0.0.13:8510 is unreachable",
    ]
    assert shown(found).startswith(problems_of(found)[0])
    found["center"]["filled"] = 0.4
    found["center"]["replicas"][0].update(reachable=False, ready=False)
    found["center"]["replicas"][1].update(ready=False, problem="the database is away")
    assert problems_of(found)[2:] == [
        "center center-0:8500 is unreachable",
        "center center-1:8500 is not ready: the database is away",
        "the lists are being filled: 40%",
    ]
    found["partitions"][0]["lag_seconds"] = 90.0
    assert problems_of(found)[-1] == "1 partition is behind, by up to 90 s"


def test_control_characters_do_not_reach_the_terminal() -> None:
    found = overview(NOW)
    found["errors"][0]["message"] = "\x1b[2Jgone [bold]not markup[/bold]"
    assert "\\u001b[2Jgone [bold]not markup[/bold]" in shown(found)


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    fake = FakeTaskCenter()
    with serving(fake):
        yield fake.url


def test_without_a_terminal_it_is_printed_once_and_the_exit_code_tells(url: str) -> None:
    printed = CliRunner().invoke(app, ["status", "--center-url", url])
    assert printed.exit_code == 1
    assert printed.stdout.startswith("edge http://10.0.0.21:8400 is degraded")
    told = CliRunner().invoke(app, ["status", "--center-url", url, "--json"])
    assert len(json.loads(told.stdout)["workers"]) == 3
