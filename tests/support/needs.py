"""What a test needs of the machine is looked for where it is used: the test is skipped where it is missing.

Under ``CI=true`` it fails. The list is ``tools/prerequisites.py``; the run's last line counts what was skipped.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

import pytest

from prerequisites import BY_NAME, apt_get_install

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from _pytest.terminal import TerminalReporter

_MISSING = "is missing"


def program(name: str) -> str:
    """Return where a prerequisite is."""
    needed = BY_NAME[name]
    found = needed.find()
    if found is None or needed.is_missing():
        leave_out(name)
    return found


def leave_out(name: str, why: str = "") -> NoReturn:
    """Skip the test: this prerequisite is not here."""
    reason = reason_of(name, why)
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def reason_of(name: str, why: str = "") -> str:
    needed = BY_NAME[name]
    why = why or ("run the tests as root" if needed.find() else apt_get_install([needed]))
    return f"{name} {_MISSING}: {why}"


def reason_of_no_core() -> str:
    """Why tests of the native core are skipped: what builds it is missing, or it was not built."""
    lacking = next((name for name in ("cc", "cargo") if BY_NAME[name].is_missing()), None)
    return reason_of(lacking) if lacking else "the native core is not installed here: make native"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """The last line of a run, after pytest's own, says how many tests were skipped for which prerequisite."""
    yield
    reporter: TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and (line := summary_of(reporter.stats.get("skipped", []))):
        reporter.write_line(line)


def summary_of(skipped: Iterable[pytest.TestReport]) -> str:
    reasons = [each.longrepr[2] for each in skipped if isinstance(each.longrepr, tuple)]
    named = (re.match(rf"Skipped: (.+?) {_MISSING}\b", each) for each in reasons)
    counted = Counter(each[1] for each in named if each)
    counts = ", ".join(f"{count} for {name}" for name, count in counted.most_common())
    return counts and f"skipped, because these programs are missing: {counts}"
