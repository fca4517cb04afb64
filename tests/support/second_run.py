"""``.ci/run`` runs the tests that failed once more, in a new process (ADR 84): ``TASKBRIDGE_SECOND_RUN=1``.

What earlier tests left behind in the first process is not there. More than two failures get no second run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

MOST = 2
_ASKED_FOR = "TASKBRIDGE_SECOND_RUN"


class SecondRun:
    """Registered in the process that reports."""

    _died = ""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object) -> None:
        """A process that dies leaves tests without a result, and xdist may count none of them as failed."""
        if error:
            self._died = f"{node} died ({error}): the tests that it had left did not run"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        yield
        reporter: TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            return
        if self._died:
            reporter.write_line(f"\n{self._died}", red=True)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        elif os.environ.get(_ASKED_FOR) and session.exitstatus == pytest.ExitCode.TESTS_FAILED:
            _run_failed(session, reporter)


def _run_failed(session: pytest.Session, reporter: TerminalReporter) -> None:
    reports = reporter.stats.get("failed", []) + reporter.stats.get("error", [])
    failed = list(dict.fromkeys(each.nodeid for each in reports))
    if not 0 < len(failed) <= MOST:
        return
    reporter.write_line(f"\nRERUN in a new process: {' '.join(failed)}", yellow=True)
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", session.config.option.markexpr, *failed]
    environment = {name: value for name, value in os.environ.items() if name != _ASKED_FOR}
    session.exitstatus = subprocess.run(command, env=environment, cwd=session.config.rootpath, check=False).returncode
