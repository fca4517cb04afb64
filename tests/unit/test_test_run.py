"""How the tests are run."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from support.durations import Durations

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_longest_files_start_first_each_followed_by_short_ones(tmp_path: Path) -> None:
    record = tmp_path / "durations.json"
    record.write_text(json.dumps({"long": 60.0, "longer": 90.0, **{f"short{each}": each for each in range(5)}}))
    paths = [
        tmp_path / name for name in ("long", "unknown", "short0", "short1", "short2", "short3", "short4", "longer")
    ]
    names = [each.name for each in Durations(record, tmp_path).in_order(paths)]
    assert names == ["longer", "short4", "short3", "short2", "long", "short1", "short0", "unknown"]


def test_a_run_records_its_files_and_forgets_deleted_ones(tmp_path: Path) -> None:
    record = tmp_path / "durations.json"
    record.write_text(json.dumps({"test_deleted.py": 5, "test_left_out.py": 2.5, "test_run.py": 7}))
    for name in ("test_left_out.py", "test_run.py"):
        (tmp_path / name).touch()
    durations = Durations(record, tmp_path)
    for node, seconds in (("test_run.py::test_one", 0.25), ("test_run.py::test_two[a::b]", 1.5)):
        durations.pytest_runtest_logreport(cast("pytest.TestReport", SimpleNamespace(nodeid=node, duration=seconds)))
    durations.pytest_sessionfinish(cast("Any", SimpleNamespace(config=SimpleNamespace(rootpath=tmp_path))))
    assert json.loads(record.read_text()) == {"test_left_out.py": 2.5, "test_run.py": 1.8}
