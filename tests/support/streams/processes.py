"""Workers of the streams service and ``taskbridge streams --rebuild`` and its like as processes of their own."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from support.edge.process import LOAD_FAST
from support.forked import COMMAND, Forked, ForkedService, show_log
from support.streams.lives import caught_up, lives, produce, read_topic, topics_on
from taskbridge.runtime.kafka import consumer_config
from taskbridge.streams.contract.live_version import LiveVersion
from taskbridge.streams.instances.pending_notifications import PENDING_PREFIX, instance_key
from taskbridge.streams.table_versions import instances_changelog
from taskbridge.streams.transactions.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.streams.table_versions import Versions

    Read = Callable[[str], list[Message]]


_CODE = f"{LOAD_FAST}; from taskbridge.streams.app import main; main()"


class Worker(ForkedService):
    """One worker."""

    def __init__(self, folder: Path, connection: Connection, **environment: str) -> None:
        super().__init__("streams", _CODE, folder, connection, **environment)

    def readiness(self, *, timeout_s: float = 2) -> dict[str, Any]:
        return super().readiness(timeout_s=timeout_s)

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels, as Prometheus reads them."""
        answer = self.get("/metrics", timeout_s=5)
        text = "" if answer is None else answer.text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}


class Load:
    """A thread that writes the lives of new instances, a few at a time, until it is stopped.

    Some 75 events a second with ``at_once=1``: the tests fold all of them again, and a busy machine takes longer.
    """

    def __init__(self, connection: Connection, seed: int, *, at_once: int = 1) -> None:
        self._connection, self._at_once = connection, at_once
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._stop.is_set():
            produce(self._connection, lives(self._at_once, seed=self._chance.randrange(1 << 30)))
            time.sleep(0.1)


class Rebuild:
    """``taskbridge streams --rebuild`` as a process of its own, without the time to load."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        self.log_path = folder / "rebuild.log"
        self._out_path = folder / "rebuild.out"
        self.data_dir = folder / "rebuild"
        self._environment = {
            **os.environ,
            "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
            "TASKBRIDGE_SCHEMA_REGISTRY_URL": connection.registry_url,
            "STREAMS_DATA_DIR": str(self.data_dir),
        }
        self._process: Forked | None = None

    def start(self, *arguments: str, code: str = COMMAND) -> Forked:
        """Start it; with other ``code``, one that was changed for a test."""
        given = ["taskbridge", "streams", "--json", *(arguments or ("--rebuild",))]
        self._out_path.unlink(missing_ok=True)
        self._process = Forked(
            code, environment=self._environment, log=self.log_path, out=self._out_path, arguments=given
        )
        return self._process

    def run(self, *arguments: str) -> dict[str, Any]:
        """What it came to."""
        assert self.start(*arguments).wait(180) == 0, self.log_path.read_text()
        return json.loads(self._out_path.read_text())

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_if_running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def show_log(self) -> None:
        show_log(self.log_path)


def ends(connection: Connection) -> dict[str, dict[int, int]]:
    """The end offset of each partition of each of our topics. None may be created or deleted by others meanwhile."""
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    return {name: offsets.ends(name, partitions) for name, partitions in topics_on(connection).items()}


def ends_of(connection: Connection, topic: str) -> dict[int, int]:
    """The end offset of each partition of a topic."""
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    return offsets.ends(topic, topics_on(connection)[topic])


def processed(connection: Connection, workers: Iterable[Worker], eventually: Any) -> None:
    """Return when the workers are ready, have folded every event, and have published what a rebuild left pending."""
    eventually(lambda: all(each.is_ready() for each in workers), what="the workers are ready")
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(lambda: not pending_notifications(connection), what="a rebuild left nothing pending")


def live_version(connection: Connection) -> LiveVersion:
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    return LiveVersion(connection.bootstrap_servers, {}, offsets)


def versions(connection: Connection) -> Versions:
    """The versions as Kafka has them now."""
    return live_version(connection).read()


def pending_notifications(connection: Connection) -> set[bytes]:
    """Keys of the instances with pending notifications in the live changelog."""
    changelog = instances_changelog(versions(connection).live).name
    last = {bytes(each.key() or b""): each.value() for each in read_topic(connection, changelog)}
    return {instance_key(key) for key, value in last.items() if key.startswith(PENDING_PREFIX) and value is not None}
