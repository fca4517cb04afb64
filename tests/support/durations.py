"""How long each test file took in the last recorded run: of each kind, files that take longest start first.

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
    from collections.abc import Callable, Iterable

    import pytest

TESTS = Path(__file__).parents[1]
RECORD = TESTS / "durations.json"
_UNKNOWN_S = 10.0


class Durations:
    """Seconds by file, named relative to ``tests``; the process that distributes the tests records them."""

    def __init__(self, record: Path = RECORD, tests: Path = TESTS) -> None:
        self._record, self._tests = record, tests
        self._recorded: dict[str, float] = json.loads(record.read_text("utf-8")) if record.exists() else {}
        self._measured: dict[str, float] = defaultdict(float)

    def in_order(self, paths: Iterable[Path], kind: Callable[[Path], object]) -> list[Path]:
        """The longest of each kind first, with an even share of every kind at any time.

        So tests that wait for services and tests that compute share the cores until the end.
        """
        seconds = {path: self._recorded.get(self._name(path), _UNKNOWN_S) for path in paths}
        of_kind: dict[object, list[Path]] = defaultdict(list)
        for path in sorted(seconds, key=lambda path: -seconds[path]):
            of_kind[kind(path)].append(path)
        share_before: dict[Path, float] = {}
        for each in of_kind.values():
            *sums, total = itertools.accumulate((seconds[path] for path in each), initial=0.0)
            share_before |= {path: before / (total or 1) for path, before in zip(each, sums, strict=True)}
        return sorted(share_before, key=lambda path: share_before[path])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._measured[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        measured = {self._name(session.config.rootpath / name): each for name, each in self._measured.items()}
        seconds = {**self._recorded, **{name: round(each, 1) for name, each in measured.items()}}
        left = {name: each for name, each in sorted(seconds.items()) if (self._tests / name).exists()}
        self._record.write_text(json.dumps(left, indent=0) + "\n", "utf-8")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._tests).as_posix() if path.is_relative_to(self._tests) else str(path)
