"""A Kafka of three brokers of a test's own; the first is the controller too, and must stay."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from jvm_artifacts import artifacts, change_properties
from taskbridge.local.jvm.kafka import kafka_service
from taskbridge.local.ports import LOOPBACK, free_ports
from taskbridge.local.processes.services import Backoff
from taskbridge.local.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from taskbridge.local.processes.services import ServiceSpec

BROKERS = (1, 2, 3)
_NOT_BY_ITSELF = Backoff(first_s=3600, max_s=3600)
_OF_THREE = {
    "default.replication.factor": "3",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # Kafka's default: brokers that only follow the controller hear with the next record that the last one counts.
    "metadata.max.idle.interval.ms": "500",
}


class KafkaCluster:
    """``kill`` takes a broker away at once, until ``start`` brings it back with what is on its disk."""

    def __init__(self, folder: Path) -> None:
        controller_port, *ports = free_ports(1 + len(BROKERS))
        self.servers = ",".join(f"{LOOPBACK}:{port}" for port in ports)
        self._supervisor = Supervisor(on_event=print, backoff=_NOT_BY_ITSELF)
        self._specs: dict[int, ServiceSpec] = {}
        for broker, port in zip(BROKERS, ports, strict=True):
            data_dir = folder / f"broker-{broker}"
            if broker > 1:
                _copy_storage(folder / "broker-1", data_dir, broker)
            spec = kafka_service(
                jars=artifacts().kafka_jars, data_dir=data_dir, port=port, controller_port=controller_port
            )
            own = {} if broker == 1 else _without_controller(broker, port)
            change_properties(data_dir / "server.properties", {}, {**_OF_THREE, **own})
            self._specs[broker] = replace(spec, name=f"broker-{broker}")

    def __enter__(self) -> Self:
        self.start(*BROKERS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nobody reads what they leave: told to stop, each would hand over what it leads.
        for each in BROKERS:
            with contextlib.suppress(KeyError):  # it is killed already
                self.kill(each)

    def start(self, *brokers: int) -> None:
        """Return when all of these answer; they start side by side."""
        self._supervisor.start(*(self._specs[each] for each in brokers))

    def restart(self, broker: int) -> None:
        """As an administrator does: told to stop, it hands over what it leads; return when it answers again."""
        self._supervisor.stop(self._specs[broker].name)
        self.start(broker)

    def kill(self, broker: int) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        name = self._specs[broker].name
        if (pid := self._supervisor.pid(name)) is not None:
            os.kill(pid, signal.SIGKILL)
        self._supervisor.stop(name)


def _copy_storage(formatted: Path, data_dir: Path, broker: int) -> None:
    """The same cluster's, of another broker."""
    shutil.copytree(formatted / "storage", data_dir / "storage")
    directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    change_properties(data_dir / "storage" / "meta.properties", {}, {"node.id": str(broker), "directory.id": directory})


def _without_controller(broker: int, port: int) -> dict[str, str]:
    listener = f"BROKER://{LOOPBACK}:{port}"
    return {"node.id": str(broker), "process.roles": "broker", "listeners": listener}
