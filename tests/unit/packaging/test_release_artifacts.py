"""``make release``, twice: the same bytes, and programs that users install from them, without a compiler."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release import sums
from support import newer_python
from support.deployment.docker import DockerDaemon
from support.deployment.helm import Helm
from support.reporting import show
from support.wheels import CAN_BUILD_NATIVE, PYPROJECT, ROOT, WHERE_CARGO_BUILDS, Installed, git, program_of_uv, uv

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]

VERSION = PYPROJECT["project"]["version"]
NAME = f"taskbridge-{VERSION}"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module")
def report(pytestconfig: pytest.Config) -> Generator[list[list[str]]]:
    """Rows of two tables, for readers of a release: shown at the end, and written to ``build/release.md``."""
    builds = [
        f"taskbridge {VERSION}, commit {git('rev-parse', 'HEAD')}, built twice:\n",
        "| file | bytes | SHA-256, first build | second build |",
        "| -- | --: | -- | -- |",
    ]
    installed = ["\n| installed | with | packages that its bill of materials lacks |", "| -- | -- | -- |"]
    yield [builds, installed]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "release.md").write_text("".join(f"{line}\n" for line in (*builds, *installed)), "utf-8")
    show(pytestconfig, (*builds, *installed))


def lacking(bill: Path, installed: Iterable[tuple[str, str]]) -> str:
    """Of Python packages, those that a bill of materials does not name."""
    listed = {(each["name"], each["version"]) for each in json.loads(bill.read_text())["components"]}
    found = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in installed}
    return ", ".join(sorted(name for name, _ in found - listed if name not in ("pip", "setuptools"))) or "none"


@pytest.fixture(scope="module")
def environment(disk_folder: Callable[[], Path]) -> dict[str, str]:
    """One for the tools of a release: the tests' own stays as it is."""
    return {"UV_PROJECT_ENVIRONMENT": str(disk_folder() / "environment"), "PYTHONPATH": str(ROOT / "tools")}


@pytest.fixture(scope="module")
def daemon(disk_folder: Callable[[], Path]) -> Generator[DockerDaemon]:
    with DockerDaemon(disk_folder()) as daemon:
        yield daemon


def test_docker_loads_and_runs_the_image(artifacts: Path, daemon: DockerDaemon, report: list[list[str]]) -> None:
    assert f"taskbridge:{VERSION}" in daemon.run("load", "--input", str(artifacts / f"{NAME}-image.tar"))
    run, image = ("run", "--rm", "--read-only", "--network", "none"), f"taskbridge:{VERSION}"
    assert daemon.run(*run, image, "--version").startswith(f"taskbridge {VERSION}\ncommit ")
    assert "Yida" in daemon.run(*run, image)
    bill = artifacts / f"{NAME}-image.cdx.json"
    kinds = {each["purl"].split("/")[0] for each in json.loads(bill.read_text())["components"]}
    assert kinds == {"pkg:pypi", "pkg:cargo", "pkg:deb"}
    listing = "from importlib.metadata import distributions as all; [print(each.name, each.version) for each in all()]"
    installed = daemon.run(*run, "--entrypoint", "python3", image, "-c", listing).splitlines()
    assert f"taskbridge-edge {VERSION}" in installed
    differences = lacking(bill, ((name, version) for name, _, version in (each.partition(" ") for each in installed)))
    report[1].append(f"| Docker, read-only, without a network | the image | {differences} |")
    assert differences == "none"


def released(out: Path, *options: str, environment: dict[str, str], temporary: Path) -> Path:
    temporary.mkdir()
    command = ("run", "--quiet", "--only-group", "release", "python", "-m", "release", "--out", str(out), *options)
    uv(*command, checkout=ROOT, **environment, TMPDIR=str(temporary))
    return out


@pytest.fixture(scope="module")
def artifacts(disk_folder: Callable[[], Path], environment: dict[str, str]) -> Path:
    folder = disk_folder()
    return released(folder / "dist", environment=environment, temporary=folder / "temporary")


def test_two_builds_have_the_same_bytes(
    artifacts: Path, environment: dict[str, str], disk_folder: Callable[[], Path], report: list[list[str]]
) -> None:
    folder = disk_folder()
    again = released(folder / "again", environment=environment, temporary=folder / "another-name")
    names = {each.name for each in artifacts.iterdir()}
    assert {each.name for each in again.iterdir()} == names
    both = sums.files(artifacts), sums.files(again)
    sizes = {name: (artifacts / name).stat().st_size for name in both[0]}
    report[0] += [f"| {name} | {size} | {both[0][name]} | {both[1][name][:16]} |" for name, size in sizes.items()]
    assert [name for name in sorted(names) if (artifacts / name).read_bytes() != (again / name).read_bytes()] == []


def test_everything_is_there(artifacts: Path) -> None:
    names = {each.name for each in artifacts.iterdir()}
    parts = [each.replace("deploy", "cli") for each in PYPROJECT["tool"]["uv"]["workspace"]["members"]]
    for part in parts:
        assert f"taskbridge_{part}-{VERSION}-py3-none-any.whl" in names
        assert (f"taskbridge_{part}-{VERSION}.tar.gz" in names) == (part != "native"), "pip never compiles the core"
    others = {f"{NAME}{end}" for end in (".tgz", "-deploy.tar.gz", "-constraints.txt", ".cdx.json", "-notes.md")}
    assert {*others, f"{NAME}-provenance.json", "SHA256SUMS"} <= names
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=artifacts, check=False)
    assert sums.returncode == 0


@WHERE_CARGO_BUILDS
def test_the_core_is_one_wheel_for_old_systems(artifacts: Path) -> None:
    machine = os.uname().machine
    (core,) = artifacts.glob(f"taskbridge_native-*-abi3-*_{machine}.whl")
    assert core.name == f"taskbridge_native-{VERSION}-cp311-abi3-manylinux_2_28_{machine}.whl"


def test_helm_renders_and_lints_the_packed_chart(artifacts: Path, tmp_path: Path) -> None:
    with tarfile.open(artifacts / f"{NAME}.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    values = {
        "kafka": {"bootstrapServers": "kafka:9092"},
        "schemaRegistry": {"url": "http://registry:8081"},
        "image": {"repository": "taskbridge"},
        "edge": {"credentials": {"existingSecret": "apps"}},
        "center": {"apiTokens": {"existingSecret": "tokens"}},
    }
    (rendered,) = Helm().render(tmp_path / "taskbridge", values)
    assert rendered.error == ""
    assert [each for each in rendered.lint if "icon is recommended" not in each] == []
    assert rendered.one("StatefulSet", "edge")["spec"]["template"]["spec"]["containers"][0]["image"].endswith(VERSION)


def interpreter(version: str) -> str:
    """One of uv's, or of pyenv's, or on the PATH, or of Debian's; the test is skipped where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(map(str, pyenv.glob(f"versions/{version}.*/bin")))
    path = os.pathsep.join([*found, os.environ.get("PATH", os.defpath)])
    try:
        return uv("python", "find", "--no-project", "--no-python-downloads", version, PATH=path).strip()
    except AssertionError:
        if version in newer_python.RELEASES:
            return newer_python.unpacked(version)
        pytest.skip(f"there is no Python {version} here")


def typed(heading: str, folder: Path, artifacts: Path, **programs: str) -> str:
    """What the commands of the page "Install" print. No compiler, cargo, git or make is on the PATH."""
    page = (ROOT / "docs" / "how-to" / "install.md").read_text("utf-8")
    (commands,) = re.findall(rf"(?ms)^## {heading}\n[^#]*?```sh\n(.*?)```", page)
    (folder / "dist").symlink_to(artifacts)
    (folder / "bin").mkdir()
    for name, path in programs.items():
        (folder / "bin" / name).symlink_to(path)
    alone = {**os.environ, "PATH": str(folder / "bin")}
    argv = ["/bin/bash", "-ec", commands]
    done = subprocess.run(argv, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("version", PYTHONS)
def test_pip_installs_the_program_and_the_bill_of_materials_names_all_of_it(
    version: str, artifacts: Path, tmp_path: Path, report: list[list[str]]
) -> None:
    said = typed("Install the program", tmp_path, artifacts, python3=interpreter(version))
    core = VERSION if CAN_BUILD_NATIVE else "not installed: callbacks and events are processed in Python, more slowly"
    assert said.endswith(f"taskbridge {VERSION}\ncommit {git('rev-parse', 'HEAD')}\nnative core {core}\n")
    installed = Installed(tmp_path / "taskbridge", tmp_path)
    assert installed.run("taskbridge", "schemas", "check").returncode == 0
    (site,) = installed.environment.glob("lib/python*/site-packages")
    found = ((each.name, each.version) for each in distributions(path=[str(site)]))
    differences = lacking(artifacts / f"{NAME}.cdx.json", found)
    report[1].append(f"| Python {version}, pip | the wheels; core: {core} | {differences} |")
    assert differences == "none"


def test_one_line_shows_the_demo(artifacts: Path, tmp_path: Path, report: list[list[str]]) -> None:
    uvx = str(Path(program_of_uv()).with_name("uvx"))
    # What uv's script needs, and Maven's, where Kafka was not fetched before.
    names = ("java", "mvn", "sh", "basename", "cat", "cut", "dirname", "expr")
    names += ("ls", "readlink", "realpath", "sed", "tr", "uname")
    programs = {name: path for name in names if (path := shutil.which(name))}
    shown = typed("Try it", tmp_path, artifacts, uvx=uvx, uv=program_of_uv(), python3=sys.executable, **programs)
    assert "PENDING" in shown
    report[1].append("| uvx, the demo | the wheels | |")


def test_where_no_wheel_of_the_core_fits_nothing_is_compiled(
    artifacts: Path, tmp_path: Path, report: list[list[str]]
) -> None:
    """As on a system with glibc 2.17, which is older than what the core needs."""
    made = Installed(tmp_path / "environment", tmp_path)
    uv("venv", "--quiet", "--python", sys.executable, str(made.environment))
    given = ("--python", str(made.environment), "--no-index", "--find-links", str(artifacts), "--no-cache")
    uv("pip", "install", "--quiet", *given, "--python-platform", "x86_64-manylinux2014", "taskbridge-native")
    assert made.modules("taskbridge.native") == ["taskbridge.native"]
    assert list(made.environment.rglob("_native*.so")) == []
    report[1].append("| uv, for glibc 2.17 | the wheel without the core | |")
