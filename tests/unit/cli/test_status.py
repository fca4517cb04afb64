"""The whole system on one screen, and the problems that need attention."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from support.browser.fake_operations import WEBHOOKS, overview
from support.browser.fake_task_center import FakeTaskCenter, serving
from support.served_apps import TOKEN, center_app
from support.served_apps import serving as serving_app
from taskbridge.cli.program import app
from taskbridge.cli.status import fetch_overview, problems_of, screen
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

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


def test_webhooks_that_fail_are_problems() -> None:
    found: dict[str, Any] = {**overview(NOW), "edges": [], "webhooks": WEBHOOKS}
    assert problems_of(found) == [
        "webhook endpoint erp is failing: since 2026-01-31T08:00:00.000Z",
        "webhook endpoint robot is disabled: it answered 410 Gone",
    ]
    away: dict[str, Any] = {**WEBHOOKS["services"][0], "reachable": False, "ready": False, "problem": "no answer"}
    found["webhooks"] = {"services": [away], "endpoints": []}
    assert problems_of(found) == ["webhooks http://10.0.0.41:8700 is unreachable: no answer"]


def test_when_all_is_well_it_says_so() -> None:
    found = overview(NOW)
    del found["edges"][0]
    assert problems_of(found) == []
    assert shown(found).startswith("nothing needs attention\n")
    # What was logged may be long over, and is no part of the verdict.
    assert "\nlast errors:\n" in shown(found)
    found["errors"] = []
    assert shown(found).startswith("all is well\n")
    assert "last errors" not in shown(found)


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


def test_where_a_token_is_needed_it_says_how_to_get_one(tmp_path: Path) -> None:
    with center_app(tmp_path, is_open=False) as http, serving_app(http) as center:
        with pytest.raises(
            OperatorError, match=r"answered 401: set TASKBRIDGE_API_TOKEN .*taskbridge token new"
        ) as why:
            fetch_overview(center, None)
        assert "CENTER_API_TOKENS_FILE" in str(why.value)
        assert fetch_overview(center, TOKEN)["workers"] == []


def test_an_address_that_is_not_a_task_center_is_reported(url: str) -> None:
    with pytest.raises(OperatorError, match=r"no task center answers at http://127\.0\.0\.1:1 "):
        fetch_overview("http://127.0.0.1:1", None)
    with pytest.raises(OperatorError, match="answered 404: check that --center-url is a task center"):
        fetch_overview(f"{url}/nowhere", None)
