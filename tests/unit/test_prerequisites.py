"""What ``make demo`` and ``make test`` need of a machine is checked before anything else starts.

They run here with a PATH of links to what is allowed. Nothing is installed: ``uv`` and ``apt-get`` are scripts.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import prerequisites
from support import needs
from support.wheels import ROOT
from taskbridge.local import artifacts
from taskbridge.local.host import free_port

UV = """#!/bin/sh
echo "$@" >> {called}
case "$1" in
  python) exit 1 ;;
esac
shift
while :; do case "$1" in --group) shift 2 ;; --*) shift ;; *) break ;; esac; done
[ "$1" = pytest ] || exit 0
exec {programs}/"$@"
"""
"""It notes what it is called with, and has everything installed. Of what it runs it runs pytest."""
OLD_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
exec {python} -c '
import runpy, sys
sys.version, sys.version_info = "3.9.2 (main)", (3, 9, 2, "final", 0)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
' "$@"
"""
DEMO_AND_TEST_NEED_NO_ROOT = {"apt-get", "apt-cache", "sudo", "uv"}


@dataclass
class Machine:
    """One with the programs of this one, without those that are hidden."""

    folder: Path
    checkout: Path = ROOT

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    def hide(self, *patterns: str) -> None:
        self.programs.mkdir(exist_ok=True)
        for folder in reversed(os.environ["PATH"].split(os.pathsep)):
            for each in Path(folder).glob("*"):
                link = self.programs / each.name
                link.unlink(missing_ok=True)
                if each.name != "python3" and not any(re.fullmatch(pattern, each.name) for pattern in patterns):
                    link.symlink_to(each)
        if "python3" not in patterns:
            (self.programs / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")

    def has(self, name: str, script: str, **values: object) -> None:
        program = self.programs / name
        program.unlink(missing_ok=True)
        values |= {"python": f"{sys.base_prefix}/bin/python3", "called": self.folder / name, "folder": self.programs}
        program.write_text(script.format(**values))
        program.chmod(0o755)

    def has_uv(self) -> None:
        self.has("uv", UV, programs=Path(sys.executable).parent)

    def makes(self, command: str, arguments: str = "--version", **environment: str) -> subprocess.CompletedProcess[str]:
        """``arguments`` are pytest's."""
        return self.runs("make", "--no-print-directory", command, f"ARGUMENTS={arguments}", **environment)

    def runs(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Without what this machine has fetched already."""
        nowhere = f"http://127.0.0.1:{free_port()}"
        clean = {
            "PATH": str(self.programs),
            "HOME": str(self.folder),
            "TASKBRIDGE_PREREQUISITES": "check",
            "npm_config_registry": nowhere,
            "npm_config_fetch_retries": "0",
            **dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), nowhere),
        }
        return subprocess.run(
            command,
            cwd=self.checkout,
            env=clean | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def called(self, name: str) -> list[str]:
        noted = self.folder / name
        return noted.read_text().splitlines() if noted.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.hide(*DEMO_AND_TEST_NEED_NO_ROOT)
    machine.has_uv()
    return machine


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a fresh checkout that the check reads."""
    checkout = tmp_path / "checkout"
    for each in ("Makefile", "pyproject.toml", "tools/prerequisites.py", artifacts.SUMS_PATH.relative_to(ROOT)):
        (checkout / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / each, checkout / each)
    return checkout


def output(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Its lines, without those of make."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


@pytest.mark.parametrize(
    ("command", "hidden", "start"),
    [
        ("demo", ("mvn",), "missing: mvn (Maven fetches Kafka and the registry, once); "),
        ("demo", ("java",), "missing: java (runs Maven); "),
        ("test", ("mvn", "java"), "missing: mvn (Maven fetches Kafka and the registry, once), java (runs Maven); "),
    ],
)
def test_without_maven_one_line_says_what_to_do_before_anything_is_fetched(
    machine: Machine, command: str, hidden: tuple[str, ...], start: str
) -> None:
    machine.hide(*hidden, *DEMO_AND_TEST_NEED_NO_ROOT)
    machine.has_uv()
    done = machine.makes(command)
    assert done.returncode != 0
    (line,) = output(done)
    assert line.startswith(start)
    assert "apt-get install " in line
    assert [each for each in machine.called("uv") if each.startswith("run")] == []
    assert done.stdout == ""


def test_an_old_python_is_one_line_before_anything_is_fetched(machine: Machine, checkout: Path) -> None:
    machine.checkout = checkout
    machine.hide(r"python3(\.\d+)?", *DEMO_AND_TEST_NEED_NO_ROOT)
    machine.has("python3", OLD_PYTHON)
    done = machine.makes("test")
    assert done.returncode != 0
    (line,) = output(done)
    assert line.startswith("Python 3.9.2 is too old: taskbridge needs 3.11 or newer.")


def test_with_everything_fetched_no_network_is_needed(machine: Machine) -> None:
    done = machine.makes("demo")
    assert done.returncode == 0, done.stderr
    assert machine.called("uv")[-1] == "run taskbridge demo"


def test_the_demo_installs_no_developers_packages_and_reports_a_missing_c_compiler(machine: Machine) -> None:
    machine.hide("cc", "cargo", *DEMO_AND_TEST_NEED_NO_ROOT)
    machine.has_uv()
    done = machine.makes("demo")
    assert done.returncode == 0, done.stderr
    (line,) = output(done)
    assert line.startswith("without a C compiler the services run in Python, slower: ")
    assert not any("dev" in each.split() for each in machine.called("uv"))
    machine.makes("test")
    assert any("--group dev" in each for each in machine.called("uv"))


HIDDEN = ("chromium.*", "promtool", "docker.*", "cargo", *DEMO_AND_TEST_NEED_NO_ROOT)


def test_under_ci_a_missing_program_is_a_failure_before_any_test(machine: Machine) -> None:
    machine.hide(*HIDDEN)
    machine.has_uv()
    done = machine.makes("test", CI="true")
    assert done.returncode != 0
    assert output(done)[-1] == "CI is true: all of these are required"
    assert [each for each in machine.called("uv") if each.startswith("run")] == []


def test_under_ci_a_test_that_lacks_its_program_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^promtool is missing: .*apt-get install prometheus"):
        needs.program("promtool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"^promtool is missing"):
        needs.program("promtool")


def test_the_check_can_be_read_by_a_python_that_is_too_old() -> None:
    source = Path(prerequisites.__file__).read_text("utf-8")
    ast.parse(source, feature_version=(3, 8))
