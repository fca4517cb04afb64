"""A Kafka of one test's own, whose files a test may change while it is dead."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jvm_artifacts import artifacts
from running_edge import wait_until
from taskbridge.local.jvm.kafka import kafka_service
from taskbridge.local.ports import LOOPBACK, free_ports
from taskbridge.local.processes.services import Backoff, Phase
from taskbridge.local.processes.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.local.processes.services import ServiceEvent


class OwnBroker:
    """One broker. What is killed comes back by itself."""

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
        """Between its death by SIGKILL and its return, which takes the supervisor a second and Kafka some more."""
        pid = self._supervisor.pid("kafka")
        assert pid is not None
        seen = len(self._events)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(self._events) > seen, what="Kafka's end is noticed")
        change()
        wait_until(lambda: any(each.phase is Phase.READY for each in self._events[seen:]), what="Kafka is back")

    @contextmanager
    def frozen(self) -> Generator[None]:
        """It keeps its connections, and answers nobody."""
        pid = self._supervisor.pid("kafka")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """For good: nobody reads what it leaves."""
        if (pid := self._supervisor.pid("kafka")) is not None:
            os.kill(pid, signal.SIGKILL)
        self._supervisor.stop()
