"""How long each test file took in the last recorded run: files that take longest start first.

``pytest --record-durations`` writes ``tests/durations.json`` at the end of a run. The number of a file that did not run
stays; the number of a deleted file is removed. The numbers only order the files, so they may be old.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

TESTS = Path(__file__).parents[1]
RECORD = TESTS / "durations.json"
_LONG_S = 10.0
_BETWEEN = 3
"""Short files after each long one: services that wait and tests that compute share the cores until the end."""


class Durations:
    """Seconds by file, named relative to ``tests``; the process that distributes the tests records them."""

    def __init__(self, record: Path = RECORD, tests: Path = TESTS) -> None:
        self._record, self._tests = record, tests
        self._recorded: dict[str, float] = json.loads(record.read_text("utf-8")) if record.exists() else {}
        self._measured: dict[str, float] = defaultdict(float)

    def in_order(self, paths: Iterable[Path]) -> list[Path]:
        """The longest first, each followed by a few short files. A file without a number counts as long."""
        seconds = {path: self._recorded.get(self._name(path), _LONG_S) for path in paths}
        longest_first = sorted(seconds, key=lambda path: -seconds[path])
        long = [path for path in longest_first if seconds[path] >= _LONG_S]
        short = iter(longest_first[len(long) :])
        return [*(each for path in long for each in (path, *itertools.islice(short, _BETWEEN))), *short]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._measured[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        measured = {self._name(session.config.rootpath / name): each for name, each in self._measured.items()}
        seconds = {**self._recorded, **{name: round(each, 1) for name, each in measured.items()}}
        left = {name: each for name, each in sorted(seconds.items()) if (self._tests / name).exists()}
        self._record.write_text(json.dumps(left, indent=0) + "\n", "utf-8")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._tests).as_posix() if path.is_relative_to(self._tests) else str(path)
