"""The size of many instances on Kafka and on a worker's disk, and the time until a worker has them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
from tests.bench.machine import bytes_below, resident_mb, size_of, tree_seconds
from tests.bench.services import wait_until
from tests.bench.streams.contenders import TASKBRIDGE
from tests.bench.streams.records import Writer
from tests.bench.streams.seeds import Seeds
from tests.bench.toolchains import CHECKOUT

from taskbridge.local.child import Child
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.schemas import topics
from taskbridge.schemas.views import views
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.fold.stored_instance import state_value
from taskbridge.streams.table_versions import instances_changelog

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Self

    from tests.bench.streams.setup import Setup


def topic_bytes(setup: Setup, topic: str) -> int:
    """What a topic's segments hold on the one broker; their indexes, a few thousandths, are left out."""
    partitions = {f"{topic}-{number}" for number in range(setup.partitions)}
    # Old segments of a topic that was deleted and recreated stay for a while under another name.
    segments = setup.folder.rglob(f"{topic}-[0-9]*/*.log")
    return sum(size_of(path) for path in segments if path.parent.name in partitions)


def topics_bytes(setup: Setup, topics: Iterable[str]) -> dict[str, int]:
    return {topic: topic_bytes(setup, topic) for topic in topics}


INSTANCES = instances_changelog(1).name
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Started:
    """Until a worker was ready."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Holding:
    """Of one number of instances."""

    instances: int
    entries: int
    """In people's lists."""
    on_kafka: dict[str, int]
    """Bytes of each topic, with one record for each key."""
    store_bytes: int
    memory_mb: float
    empty_disk: Started
    standby: Started
    """From the death of the only other worker, with all of it on standby."""
    own_disk: Started


class Worker:
    """A worker with a data folder of its own."""

    def __init__(self, setup: Setup, name: str) -> None:
        self.folder = setup.folder / name
        self._port = free_port()
        foreign = ("STREAMS_", "TASKBRIDGE_", "FAUST_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._settings = inherited | {
            "STREAMS_PORT": str(self._port),
            "STREAMS_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
            "STREAMS_SCHEMA_REGISTRY_URL": setup.registry_url,
            "STREAMS_DATA_DIR": str(self.folder),
            "TASKBRIDGE_PARTITIONS": str(setup.partitions),
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def start(self) -> None:
        argv = [sys.executable, "-m", "taskbridge.streams.app"]
        log = self.folder.with_suffix(".log")
        self._child = Child(argv, env=self._settings, cwd=CHECKOUT, log_path=log, orphan_signal=signal.SIGKILL)
        self._began = time.monotonic()

    def end(self, signum: signal.Signals) -> None:
        self._child.end(signum, timeout_s=_STOP_S)

    @property
    def is_ready(self) -> bool:
        return self._readiness().get("ready", False)

    @property
    def active(self) -> int:
        """How many partitions it processes; 0 where it is not ready."""
        found = self._readiness()
        return len(found["partitions"]["active"]) if found.get("ready", False) else 0

    def _readiness(self) -> dict[str, Any]:
        try:
            return httpx2.get(f"http://{LOOPBACK}:{self._port}/readyz", timeout=5, trust_env=False).json()
        except (httpx2.HTTPError, ValueError):
            return {}

    def until_ready(self, *, active: int) -> Started:
        wait_until(lambda: self.active == active, f"{self.folder.name} is ready")
        return Started(time.monotonic() - self._began, self.cpu_s)

    def logged(self, event: str) -> int:
        """How often."""
        return self.folder.with_suffix(".log").read_text().count(event)

    @property
    def cpu_s(self) -> float:
        return tree_seconds(self._child.pid)

    @property
    def memory_mb(self) -> float:
        return resident_mb(self._child.pid)


def measure_holding(setup: Setup, instances: int) -> Holding:
    """Fill the changelogs and the states with so many, and start workers on them."""
    partitions = setup.partitions
    entries = fill(setup, instances)
    with ExitStack() as stack:
        first = stack.enter_context(Worker(setup, f"first-{instances}"))
        second = Worker(setup, f"second-{instances}")
        setup.progress(f"{instances:,} instances on an empty disk")
        empty_disk = first.until_ready(active=partitions)
        memory_mb = first.memory_mb
        setup.progress("the same on standby, and its takeover")
        second.start()
        stack.callback(second.end, signal.SIGTERM)
        wait_until(lambda: _has_caught_up(first, second), "the second worker has all on standby")
        cpu_before = second.cpu_s
        began = time.monotonic()
        first.end(signal.SIGKILL)
        wait_until(lambda: second.active == partitions, "the second worker has taken over")
        standby = Started(time.monotonic() - began, second.cpu_s - cpu_before)
        second.end(signal.SIGTERM)
        setup.progress("and on its own disk")
        second.start()
        own_disk = second.until_ready(active=partitions)
        second.end(signal.SIGTERM)
        on_kafka = topics_bytes(setup, (INSTANCES, topics.TASK_STATES.name))
        found = Holding(
            instances=instances,
            entries=entries,
            on_kafka=on_kafka,
            store_bytes=_table_bytes(second.folder, "instances"),
            memory_mb=memory_mb,
            empty_disk=empty_disk,
            standby=standby,
            own_disk=own_disk,
        )
    for worker in (first, second):
        shutil.rmtree(worker.folder, ignore_errors=True)
    return found


def _has_caught_up(first: Worker, second: Worker) -> bool:
    """Whether the two share the partitions, and nothing more comes to their disks: each has all of it."""
    if not (first.is_ready and second.is_ready):
        return False
    there = [bytes_below(worker.folder) for worker in (first, second)]
    time.sleep(2)
    return there == [bytes_below(worker.folder) for worker in (first, second)]


def _table_bytes(folder: Path, table: str) -> int:
    return sum(bytes_below(path) for path in folder.rglob(f"{table}-*.db"))


def fill(setup: Setup, instances: int) -> int:
    """Returns how many list entries there are."""
    kafka, partitions = setup.kafka, setup.partitions
    kafka.forget(APP_ID)
    # Another version of the instances may be live, of what was measured before.
    kafka.delete([name for name in kafka.names() if name.startswith(APP_ID)])
    for topic in (*topics.ALL, instances_changelog(1)):
        kafka.create(topic.name, partitions, topic.settings)
    seeds, entries = Seeds(TASKBRIDGE, setup), 0
    counts = [len(views(seeds.instance(number).state)) for number in range(seeds.templates)]
    writer = Writer(setup)
    for number, (key, stored) in enumerate(seeds.records(instances)):
        if number % 100_000 == 0:
            setup.progress(f"writing {number:,} of {instances:,} instances")
        writer.write(INSTANCES, key, stored)
        writer.write(topics.TASK_STATES.name, key, state_value(stored))
        entries += counts[number % seeds.templates]
    writer.finish()
    return entries
