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
from typing import TYPE_CHECKING

import pytest

import prerequisites
from support import needs
from support.wheels import ROOT
from taskbridge.local import artifacts
from taskbridge.local.host import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

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
APT_GET = """#!/bin/sh
echo "$@" >> {called}
case "$*" in *install*) ln -s {python} {folder}/promtool ;; esac
"""
SUDO = """#!/bin/sh
shift
exec "$@"
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


def test_a_missing_python_is_reported_as_well(machine: Machine, checkout: Path) -> None:
    machine.checkout = checkout
    machine.hide(r"python3(\.\d+)?", "python3", *DEMO_AND_TEST_NEED_NO_ROOT)
    done = machine.makes("demo")
    assert done.returncode != 0
    assert done.stdout == "Python is missing or too old: taskbridge needs 3.11 or newer, as python3\n"


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
SELECTED = (
    "tests/unit/test_threat_model.py",
    "tests/unit/monitoring/test_dashboards.py::test_prometheus_parses_every_query",
    "tests/unit/test_native_vectors.py::test_the_core_passes_its_own_tests",
    "tests/browser/test_modules.py",
    "tests/integration/test_containers.py::test_the_image_is_small_and_has_the_program_and_nothing_of_the_tests",
)


def test_what_can_run_runs_and_the_last_line_counts_what_was_skipped_for_which_program(machine: Machine) -> None:
    machine.hide(*HIDDEN)
    machine.has_uv()
    arguments = f"-n 0 -p no:cacheprovider -m '' --tb=short {' '.join(SELECTED)}"
    done = machine.makes("test", arguments)
    assert done.returncode == 0, done.stdout
    header, *rows = output(done)
    assert header.split() == ["missing", "what", "for", "Debian's", "package"]
    assert {"promtool", "cargo"} <= {row.split()[0] for row in rows}
    assert any("apt-get install " in row and "prometheus" in row for row in rows)
    *_, summary, last = done.stdout.splitlines()
    assert re.search(r"\d passed, \d+ skipped in", summary), done.stdout
    assert last.startswith("skipped, because these programs are missing: ")
    counted = {name: int(count) for count, name in re.findall(r"(\d+) for (\w+)", last)}
    assert counted.keys() == {"chromium", "promtool", "cargo", "docker"}
    assert (counted["promtool"], counted["docker"]) == (1, 1)


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


def test_where_allowed_it_installs_missing_packages_and_reports_them(machine: Machine) -> None:
    """Root needs no sudo; this sudo needs no password."""
    machine.hide("promtool", *DEMO_AND_TEST_NEED_NO_ROOT)
    machine.has_uv()
    machine.has("apt-get", APT_GET)
    machine.has("sudo", SUDO)
    everything = {"TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "TASKBRIDGE_PREREQUISITES": ""}
    done = machine.runs("python3", "tools/prerequisites.py", "demo", **everything)
    assert (done.returncode, machine.called("apt-get")) == (0, [])
    done = machine.runs("python3", "tools/prerequisites.py", "test", **everything)
    assert done.stderr.startswith("installing ")
    update, install = machine.called("apt-get")
    assert update == "-qq update"
    assert install.startswith("-qq install --yes ")
    assert {"prometheus", "prometheus-node-exporter-"} <= set(install.split())
    assert "promtool" not in done.stderr.partition("\n")[2], "it is there now"


def test_a_program_next_to_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("usr/sbin", "dockerd"), ("usr/bin", "docker"), (".cargo/bin", "cargo"), ("other", "docker")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).touch(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/other:{tmp_path}/usr/bin")
    assert prerequisites.which("dockerd") == f"{tmp_path}/usr/sbin/dockerd"
    assert prerequisites.docker() == f"{tmp_path}/usr/bin/docker", "the client that came with the daemon"
    assert prerequisites.which("cargo") == f"{tmp_path}/.cargo/bin/cargo"
    assert prerequisites.which("chromium-headless-shell", "docker") == f"{tmp_path}/other/docker"


def no_files(_: Path) -> dict[str, str]:
    return {}


def fetches_nothing(_: Path, **__: object) -> None:
    """In the place of Maven."""


def test_maven_is_needed_until_kafka_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: Mapping[str, str] = {"TASKBRIDGE_CACHE_DIR": str(tmp_path / "cache"), "PATH": "", "HOME": ""}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    assert prerequisites.maven() is None
    monkeypatch.setattr(artifacts, "read_sums", no_files)
    cache = artifacts.cache_folder(os.environ)
    artifacts.ensure_artifacts(cache, progress=print, fetch=fetches_nothing)
    assert prerequisites.maven() is not None


def test_the_check_can_be_read_by_a_python_that_is_too_old() -> None:
    source = Path(prerequisites.__file__).read_text("utf-8")
    ast.parse(source, feature_version=(3, 8))
