"""Kafka of a test's own: one broker, three brokers, and three with one behind a network that loses packets."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from support import needs
from support.edge.process import wait_until
from support.kafka.stack import artifacts, change_properties
from taskbridge.cli.data_folder import is_listened_on
from taskbridge.local.host import LOOPBACK, free_ports
from taskbridge.local.jvm import kafka_answers, kafka_service
from taskbridge.local.supervisor import Backoff, Phase, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from taskbridge.local.supervisor import ServiceEvent, ServiceSpec


class OwnBroker:
    """One broker. It is restarted when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port, controller_port = free_ports(2)
        self.servers = f"{LOOPBACK}:{port}"
        self._events: list[ServiceEvent] = []
        self._supervisor = Supervisor(on_event=self._events.append, backoff=Backoff(first_s=1.0))
        self._supervisor.start(
            kafka_service(jars=artifacts().kafka_jars, data_dir=folder, port=port, controller_port=controller_port)
        )

    def change_files(self, change: Callable[[], None]) -> None:
        """Call ``change`` between a SIGKILL and the restart, for which the supervisor waits a second."""
        pid = self._supervisor.pid("kafka")
        assert pid is not None
        seen = len(self._events)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(self._events) > seen, what="Kafka's end is noticed")
        change()
        wait_until(lambda: any(each.phase is Phase.READY for each in self._events[seen:]), what="Kafka is back")

    @contextmanager
    def frozen(self) -> Generator[None]:
        """The broker keeps its connections and does not answer."""
        pid = self._supervisor.pid("kafka")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Kill it for good: its files are not read again."""
        if (pid := self._supervisor.pid("kafka")) is not None:
            os.kill(pid, signal.SIGKILL)
        self._supervisor.stop()


BROKERS = (1, 2, 3)
_NOT_BY_ITSELF = Backoff(first_s=3600, max_s=3600)
_OF_THREE = {
    "default.replication.factor": "3",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # Kafka's default: followers of the controller learn with the next record that the last one is committed.
    "metadata.max.idle.interval.ms": "500",
}


class KafkaCluster:
    """``kill`` ends a broker at once; ``start`` restarts it with the data on its disk."""

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
            change_properties(data_dir / "taskbridge-kafka.properties", {}, {**_OF_THREE, **own})
            self._specs[broker] = replace(spec, name=f"broker-{broker}")

    def __enter__(self) -> Self:
        self.start(*BROKERS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Their files are not read again, so no time is spent on an orderly stop.
        for each in BROKERS:
            with contextlib.suppress(KeyError):  # it is killed already
                self.kill(each)

    def start(self, *brokers: int) -> None:
        """Return when all of these answer; they start side by side."""
        self._supervisor.start(*(self._specs[each] for each in brokers))

    def restart(self, broker: int) -> None:
        """As an administrator does: an orderly stop hands over its partitions; return when it answers again."""
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


APART = 3
"""The broker in the namespace."""


class SplitCluster(KafkaCluster):
    """Clients and brokers reach broker 3 at ports of their own, so that it can be lost to one and not to the other.

    Packets are dropped silently, as by a dead switch: no connection is closed or refused.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Of this process: runs side by side do not meet.
        network = f"10.211.{os.getpid() // 64 % 256}.{os.getpid() % 64 * 4}"
        first, _, last = network.rpartition(".")
        here, there = f"{first}.{int(last) + 1}", f"{first}.{int(last) + 2}"
        self._name, self._device = f"taskbridge-{os.getpid()}", f"tb{os.getpid() % 10**8}"
        self._addresses: dict[int, str] = {each: there if each == APART else here for each in BROKERS}
        controller, *ports = free_ports(1 + 2 * len(BROKERS))
        self._clients_at: dict[int, int] = dict(zip(BROKERS, ports[::2], strict=True))
        self._brokers_at: dict[int, int] = dict(zip(BROKERS, ports[1::2], strict=True))
        self._of_the_others = [controller, *(self._brokers_at[each] for each in BROKERS if each != APART)]
        self.servers = ",".join(f"{self._addresses[each]}:{self._clients_at[each]}" for each in BROKERS)
        for broker in BROKERS:
            self._place(broker, folder / f"broker-{broker}", f"{here}:{controller}")

    def __enter__(self) -> Self:
        here, there = self._addresses[1], self._addresses[APART]
        _ip("netns", "add", self._name)
        _ip("link", "add", self._device, "type", "veth", "peer", "name", "uplink", "netns", self._name)
        _ip("address", "add", f"{here}/30", "dev", self._device)
        _ip("link", "set", self._device, "up")
        # It sends requests to itself, too, where it coordinates the transaction of a write.
        for argv in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{there}/30", "dev", "uplink"),
            ("link", "set", "uplink", "up"),
        ):
            _ip("-n", self._name, *argv)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        _ip("netns", "delete", self._name)  # and the link with it

    def cut_off(self) -> None:
        """Drop all packets to and from broker 3."""
        self._lose("INPUT", "--in-interface", "uplink")
        self._lose("OUTPUT", "--out-interface", "uplink")

    def cut_off_from_brokers(self) -> None:
        """Only clients reach it: it believes to lead partitions that the others have given to another broker."""
        self._lose("INPUT", "--protocol", "tcp", "--dport", str(self._brokers_at[APART]))
        for port in self._of_the_others:
            self._lose("OUTPUT", "--protocol", "tcp", "--dport", str(port))

    def join(self) -> None:
        self._iptables("--flush")

    def _lose(self, *what: str) -> None:
        self._iptables("--append", *what, "--jump", "DROP")

    def _iptables(self, *arguments: str) -> None:
        subprocess.run([*self._inside(), "iptables", "--wait", *arguments], check=True)

    def _inside(self) -> list[str]:
        return [needs.program("ip"), "netns", "exec", self._name]

    def _place(self, broker: int, data_dir: Path, controller: str) -> None:
        address, clients_at = self._addresses[broker], self._clients_at[broker]
        listeners = f"CLIENT://{address}:{clients_at},BROKER://{address}:{self._brokers_at[broker]}"
        own = {"listeners": f"{listeners},CONTROLLER://{controller}" if broker == 1 else listeners}
        protocols = ",".join(f"{each}:PLAINTEXT" for each in ("CLIENT", "BROKER", "CONTROLLER"))
        shared = {"advertised.listeners": listeners, "listener.security.protocol.map": protocols}
        voters = {"controller.quorum.voters": f"1@{controller}"}
        change_properties(data_dir / "taskbridge-kafka.properties", {}, {**own, **shared, **voters})
        spec = self._specs[broker]
        argv = [*self._inside(), *spec.argv] if broker == APART else spec.argv
        self._specs[broker] = replace(
            spec,
            argv=argv,
            ready=lambda: is_listened_on(clients_at, address) and kafka_answers(f"{address}:{clients_at}"),
        )


def _ip(*arguments: str) -> None:
    subprocess.run([needs.program("ip"), *arguments], check=True)
