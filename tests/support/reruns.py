"""``.ci/run`` runs a failed test once more (ADR 84): its first failure is shown, and too many of them are a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

MOST = 2


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    for each in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed once: {each.nodeid}")
        terminalreporter.write_line(each.longreprtext)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter: TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    again = len(reporter.stats.get("rerun", [])) if reporter else 0
    if reporter and again > MOST:
        reporter.write_line(f"\n{again} tests failed once, of at most {MOST}: the run has failed")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
