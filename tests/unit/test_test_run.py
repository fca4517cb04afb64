"""How the tests are run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from support.durations import Durations

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
MODULE = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(5))
def test_it(number, request):
    with pathlib.Path(os.environ["RAN"]).open("a") as ran:
        ran.write(f"{request.node.path.name} {os.environ['PYTEST_XDIST_WORKER']}\\n")
"""


def test_a_files_tests_are_run_by_one_process_and_files_side_by_side(tmp_path: Path) -> None:
    names = ["test_one.py", "test_two.py", "test_three.py"]
    for name in names:
        (tmp_path / name).write_text(MODULE)
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "RAN": str(tmp_path / "ran")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert len(ran) == 5 * len(names)
    by_file = {name: {worker for file, worker in ran if file == name} for name in names}
    assert all(len(workers) == 1 for workers in by_file.values()), by_file
    assert len({worker for _, worker in ran}) > 1


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
