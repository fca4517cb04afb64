"""Shared by all tests: a real Kafka, started when the first test of a process needs it, and one registry."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

# Otherwise the first test that draws a record imports it. Hypothesis changes the recursion limit meanwhile, and CPython
# 3.11 then sometimes cannot parse a module: "AST constructor recursion depth mismatch".
import hypothesis.strategies._internal.types  # noqa: F401  # pyright: ignore[reportUnusedImport]
import pydantic
import pytest
import structlog
import uvicorn.server
from fastapi._compat import v2 as fastapi_fields
from hypothesis import HealthCheck, settings

from support.durations import TESTS, Durations
from support.kafka.stack import AT_REST, KafkaWithSharedRegistry, SharedRegistry, artifacts, given_registry, say
from support.needs import pytest_sessionfinish
from support.second_run import SecondRun
from taskbridge.local.host import free_port, free_ports
from taskbridge.local.stack import JvmStack, choose_stack
from taskbridge.local.supervisor import Supervisor
from taskbridge.runtime.logs import NOISY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from _pytest.capture import CaptureManager

    from taskbridge.local.jvm import Endpoints
    from taskbridge.local.stack import Stack

# A hook of pytest.
__all__ = ["pytest_sessionfinish"]

# A setting that many containers have: with it, each service that a test starts compiles all its libraries again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Nor does it look for pydantic's plugins in the 150 packages of this environment, which has none.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


class _Prompt:
    """``asyncio`` as uvicorn sees it, with a tenth of its pauses.

    Each of 0.1 s until it sees that it is to end, and again while it ends: half of the time of tests that serve a fake.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay / 10)


uvicorn.server.asyncio = _Prompt()  # pyright: ignore[reportAttributeAccessIssue]


_validators: dict[tuple[object, ...], Any] = {}


def _validator(annotated: Any, *, config: Any = None) -> Any:
    """A ``TypeAdapter`` for FastAPI, one for each type: they take half of the time of the apps that the tests make."""
    key = repr(annotated.__origin__), annotated.__origin__, repr(annotated.__metadata__), repr(config)
    if key not in _validators:
        _validators[key] = pydantic.TypeAdapter(annotated, config=config)
    return _validators[key]


fastapi_fields.TypeAdapter = _validator  # pyright: ignore[reportAttributeAccessIssue]

# Tests write to memory where there is enough: half of their time was spent flushing to the disk, and while one of them
# flushes gigabytes, such as Docker's image, brokers and workers of the others would wait for longer than their sessions
# last. Large files go to the disk, by `disk_folder`.
_MEMORY = "/dev/shm"  # noqa: S108 - pytest makes a folder of its own within, for its user alone
_ROOM_BYTES, _SLOW_ROOM_BYTES = 6 << 30, 12 << 30
_DISK = "/var/tmp"  # noqa: S108 - the same; unlike /tmp it is never in memory


_LEVELS = {each: each.level for each in (logging.getLogger(), *map(logging.getLogger, NOISY))}


def _has_room(room_bytes: int) -> bool:
    try:
        found, memory = os.statvfs(_MEMORY), Path("/proc/meminfo").read_text()
    except OSError:
        return False
    available = dict(line.split(":") for line in memory.splitlines())["MemAvailable"].split()[0]
    room = min(found.f_bavail * found.f_frsize, int(available) << 10)
    return room > room_bytes and not found.f_flag & os.ST_NOEXEC


# No deadline: a broker may share the cores with the tests. Each run tries other examples:
# TASKBRIDGE_EXAMPLES=1000 tries many at once.
settings.register_profile(
    "taskbridge",
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=int(os.environ.get("TASKBRIDGE_EXAMPLES", "30")),
)
settings.load_profile("taskbridge")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help="Write how long each file takes.")


def pytest_configure(config: pytest.Config) -> None:
    if _has_room(_ROOM_BYTES if "not disasters" in config.option.markexpr else _SLOW_ROOM_BYTES):
        os.environ.setdefault("TMPDIR", _MEMORY)
        tempfile.tempdir = None  # so that it is read from the environment again
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(SecondRun())
    if config.getoption("record_durations"):
        config.pluginmanager.register(Durations())
    if config.getoption("numprocesses", None) and isinstance(_stack_in(Path(), Supervisor(on_event=say)), JvmStack):
        config.pluginmanager.register(SharedRegistry())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude the objects of thousands of tests from garbage collection: they live to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files. Each is one process's work: what its tests share is started once."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def kind(path: Path) -> tuple[str, bool]:
        """Its folder, and whether it kills and builds things."""
        marks = {mark.name for mark in files[path][0].iter_markers()}
        return path.relative_to(TESTS).parts[0], not marks.isdisjoint({"disasters", "consumers"})

    items[:] = [item for path in Durations().in_order(files, kind) for item in files[path]]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters})
    )
    return True


@pytest.fixture(autouse=True)
def default_logging() -> None:
    """Begin with the default logs: commands, services and fixtures of any file configure those of their process."""
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if type(each) is not logging.StreamHandler]
    for each, level in _LEVELS.items():
        each.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def disk_folder() -> Generator[Callable[[], Path]]:
    """Folders on the disk, for large files and for tests that need a real disk: ``tmp_path`` may be in memory."""
    with tempfile.TemporaryDirectory(prefix="taskbridge-", dir=_DISK, ignore_cleanup_errors=True) as root:
        numbers = itertools.count()

        def make() -> Path:
            folder = Path(root, str(next(numbers)))
            folder.mkdir()
            return folder

        yield make


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Generator[Endpoints]:
    """Kafka and a registry, shared by all tests of a process: use unique names for topics and subjects.

    Where several processes run the tests the registry is one for all of them.
    """
    capture = cast("CaptureManager", pytestconfig.pluginmanager.getplugin("capturemanager"))
    folder, registry = tmp_path_factory.mktemp("stack"), given_registry(pytestconfig)
    with Supervisor(on_event=say) as supervisor:
        if registry is None:
            chosen = _stack_in(folder, supervisor)
        else:
            chosen = KafkaWithSharedRegistry(registry, folder, supervisor, port=free_port(), settings=AT_REST)
        try:
            # Shown, not captured: the first run fetches 235 MB.
            with capture.global_and_fixture_disabled():
                if isinstance(chosen, JvmStack):
                    artifacts(say)
                endpoints = chosen.start()
            yield endpoints
        finally:
            chosen.stop()


def _stack_in(folder: Path, supervisor: Supervisor) -> Stack:
    kafka_port, registry_port = free_ports(2)
    return choose_stack(
        os.environ,
        data_dir=folder,
        kafka_port=kafka_port,
        registry_port=registry_port,
        supervisor=supervisor,
        progress=say,
    )
