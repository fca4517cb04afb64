"""The table of the tests that take longest, in CONTRIBUTING.md: ``make test ARGUMENTS=--slowest`` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest
    from _pytest.terminal import TerminalReporter

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"

_MOST = 20
_TARGETS = {
    "disasters": "make disasters",
    "consumers": "make consumers",
    "disasters or consumers": "make slow",
}
_WIDTH = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    told = f"write the {_MOST} tests that took longest into CONTRIBUTING.md"
    parser.addoption("--slowest", nargs="?", const=str(PAGE), metavar="PAGE", help=told)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    page = config.getoption("--slowest")
    if page is None:
        return
    # As --durations has it, without the set-up, which many may share.
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    took = {each.nodeid: each.duration for each in reports if each.when == "call"}
    write(Path(page), _TARGETS.get(config.option.markexpr, "make test"), took.items())


def write(page: Path, target: str, took: Iterable[tuple[str, float]]) -> None:
    """Replace the rows of ``target``'s table; everything else stays."""
    slowest = sorted(took, key=lambda each: each[1], reverse=True)[:_MOST]
    rows = "".join(f"| {_shown(name)} | {seconds:.0f} |\n" for name, seconds in slowest)
    head = f"| `{target}` | seconds |\n|---|---|\n"
    text, found = re.subn(rf"(?<={re.escape(head)})(\|.*\n)*", lambda _: rows, page.read_text("utf-8"))
    assert found == 1, f"{page} has no table of {target}"
    page.write_text(text, "utf-8")


def _shown(nodeid: str) -> str:
    path, _, test = nodeid.partition("::")
    words, bracket, parameters = test.removeprefix("test_").partition("[")
    shown = words.replace("_", " ") + (f" [{parameters}" if bracket else "")
    # A | in a parameter would end the cell.
    shown = shown.replace("|", "/")
    return f"`{path.removeprefix('tests/')}`: {shown if len(shown) <= _WIDTH else shown[:_WIDTH] + ' …'}"
