"""How the tests are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
