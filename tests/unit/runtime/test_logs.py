"""Logs are one line an event, with any content, and show no local variables."""

from __future__ import annotations

import ast
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from taskbridge.runtime.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskbridge.runtime.logs import LogFormat


def fail_with_a_token() -> None:
    token = "TOKEN-THAT-NOBODY-MAY-SEE"
    raise ValueError(len(token))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    configure_logs(log_format, "info")
    try:
        fail_with_a_token()
    except ValueError:
        structlog.get_logger("test").exception("failed")
    printed = capsys.readouterr().err
    assert "fail_with_a_token" in printed
    assert "TOKEN-THAT-NOBODY-MAY-SEE" not in printed


def test_json_logs_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info")
    structlog.get_logger("test").info("received", title="张红\n2026 forged line")
    logging.getLogger("library").warning("from %s", "a library")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["title"], first["level"]) == ("received", "张红\\n2026 forged line", "info")
    assert (second["event"], second["logger"]) == ("from a library", "library")


def test_a_line_break_in_a_value_does_not_start_a_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text", "info")
    structlog.get_logger("test").info("received", title="a\r\n2026 forged line")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_noisy_libraries_stay_above_debug() -> None:
    configure_logs("text", "debug")
    assert not logging.getLogger("aiokafka").isEnabledFor(logging.INFO)
    assert not logging.getLogger("faust").isEnabledFor(logging.INFO)


def test_a_library_that_repeats_itself_is_heard_once_in_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text", "info")
    for number in range(20):
        logging.getLogger("aiokafka.conn").error("cannot connect, try %s", number)
        logging.getLogger("edge").error("ours, %s", number)
    printed = capsys.readouterr().err
    assert printed.count("cannot connect") == 1
    assert printed.count("ours") == 20


ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def event_names() -> Iterator[tuple[str, str]]:
    """Where each event of the services is logged, and its name as written in the source."""
    services = ("edge", "streams", "center", "dingtalk", "feishu", "reconcile", "landing")
    for part in ("schemas", "client", "runtime", *services):
        for path in sorted((ROOT / part / "src").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "log_events":
                    yield from (
                        (f"{path.relative_to(ROOT)}:{node.lineno}", each) for each in ast.literal_eval(node.value)
                    )
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                    continue
                if node.func.attr == "_tell" and ast.unparse(node.args[0]).startswith("log."):  # of each directory
                    named = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
                    yield from ((f"{path.relative_to(ROOT)}:{node.lineno}", f"people_{each}") for each in named)
                logger = ast.unparse(node.func.value).removesuffix("_of(received)")
                if node.func.attr in LEVELS and logger.rpartition(".")[2].lstrip("_") in ("log", "logger"):
                    for each in ast.walk(node.args[0]):
                        if isinstance(each, ast.Constant) and isinstance(each.value, str):
                            yield f"{path.relative_to(ROOT)}:{node.lineno}", each.value


def test_every_event_of_the_services_is_named_in_snake_case() -> None:
    found = list(event_names())
    assert len(found) > 80
    assert [each for each in found if not re.fullmatch(r"[a-z]+(_[a-z]+)+( [a-z_]+=%s)*", each[1])] == []


def test_the_runbook_names_events_that_there_are() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    named = set(re.findall(r"log(?:'s| at)? `([a-z_]+)`|`([a-z_]+)` in (?:the|a) log", runbook))
    events = {name for _, name in event_names()}
    assert len(named) > 8
    assert {before or behind for before, behind in named} <= events
