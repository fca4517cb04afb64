"""How the tests are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import slowest

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


def test_the_slowest_are_written_where_those_of_the_last_run_stand(tmp_path: Path) -> None:
    head, rows = "| `make test` | seconds |\n|---|---|\n", "| `unit/test_old.py`: is gone | 9 |\n| more | 8 |\n"
    others = "\n| `make disasters` | seconds |\n|---|---|\n| `chaos/test_it.py`: is lost | 70 |\n"
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{head}{rows}{others}")
    took = [(f"tests/unit/test_a.py::test_takes_{each}_s[a|b]", each) for each in range(30)]
    slowest.write(page, "make test", took)
    written = [f"| `unit/test_a.py`: takes {each} s [a/b] | {each} |\n" for each in range(29, 9, -1)]
    assert page.read_text() == f"Before.\n\n{head}{''.join(written)}{others}"


def test_what_each_test_took_is_told_by_the_run_itself(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from slowest import *")
    (tmp_path / "test_one.py").write_text("def test_it_is_quick(): pass\ndef test_it_fails(): assert False")
    page = tmp_path / "page.md"
    page.write_text("| `make test` | seconds |\n|---|---|\n")
    argv = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-n", "0"]
    ended = subprocess.run([*argv, f"--slowest={page}", str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout
    assert {line.split(": ")[1] for line in page.read_text().splitlines()[2:]} == {
        "it is quick | 0 |",
        "it fails | 0 |",
    }
