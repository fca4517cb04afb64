"""A Kafka of three brokers, the third in a network namespace: packets to and from it can be lost on their way."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import needs
from jvm_artifacts import change_properties
from kafka_cluster import BROKERS, KafkaCluster
from taskbridge.local.ports import free_ports
from taskbridge.local.probes import kafka_answers, port_answers

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

APART = 3
"""The broker in the namespace."""


class SplitCluster(KafkaCluster):
    """Clients and brokers reach broker 3 at ports of their own, so that it can be lost to one and not to the other.

    What is lost is lost in silence, as by a switch that died: no connection is closed or refused.
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
        # It asks itself, too, where it coordinates the transaction that it is to write for.
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
        """Nobody reaches broker 3, and it reaches nobody."""
        self._lose("INPUT", "--in-interface", "uplink")
        self._lose("OUTPUT", "--out-interface", "uplink")

    def cut_off_from_brokers(self) -> None:
        """Clients reach it still: it takes itself for the leader of what the others have given to another."""
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
        change_properties(data_dir / "server.properties", {}, {**own, **shared, **voters})
        spec = self._specs[broker]
        argv = [*self._inside(), *spec.argv] if broker == APART else spec.argv
        self._specs[broker] = replace(
            spec,
            argv=argv,
            ready=lambda: port_answers(address, clients_at) and kafka_answers(f"{address}:{clients_at}"),
        )


def _ip(*arguments: str) -> None:
    subprocess.run([needs.program("ip"), *arguments], check=True)
