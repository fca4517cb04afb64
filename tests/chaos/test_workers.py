"""After any fault of the workers, states and notifications are those of the events.

Nightly; a short schedule that is always the same is in tests/integration/test_workers.py.
TASKBRIDGE_CHAOS_SEEDS=1,2,3 runs more schedules, TASKBRIDGE_CHAOS_SECONDS=600 longer ones.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from support.edge.process import OwnStack, wait_until
from support.streams.lives import assert_all_is_right, assert_notified_exactly_once, caught_up, read_topic
from support.streams.processes import Load, Worker
from taskbridge.cli.connection import Connection
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.nightly]

SECONDS = float(os.environ.get("TASKBRIDGE_CHAOS_SECONDS", "60"))
SEEDS = [int(seed) for seed in os.environ.get("TASKBRIDGE_CHAOS_SEEDS", "1").split(",")]
WORKERS = 3


def now() -> str:
    """As in the workers' logs."""
    return datetime.now(UTC).strftime("%H:%M:%S.%f")[:-5]


class Misfortunes:
    """Seeded, one at a time; who died is started again, as a supervisor would."""

    def __init__(self, seed: int, workers: list[Worker], stack: OwnStack) -> None:
        self._chance = random.Random(seed)
        self._workers = workers
        self._stack = stack
        self.log: list[str] = []
        self.times: list[str] = []
        """The same with the time and the worker concerned, to be compared with the workers' logs."""

    def run(self, seconds: float) -> None:
        kinds: list[Callable[[Worker], None]] = [self.kill, self.stop, self.freeze, self.blink, self.kill_broker]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or len(self.log) < len(kinds):
            for kind in self._chance.sample(kinds, len(kinds)):
                self.log.append(kind.__name__)
                worker = self._chance.choice(self._workers)
                began = now()
                kind(worker)
                self.times.append(f"{began} {kind.__name__} {worker.port}, until {now()}")
                time.sleep(self._chance.uniform(0, 8))
                self.revive()

    def revive(self) -> None:
        for worker in self._workers:
            if worker.process is None or worker.process.poll() is not None:
                worker.start()

    def kill(self, worker: Worker) -> None:
        if worker.process is not None:
            worker.end(signal.SIGKILL)

    def stop(self, worker: Worker) -> None:
        if worker.process is not None:
            worker.end(signal.SIGTERM)

    def freeze(self, worker: Worker) -> None:
        """For longer than its session."""
        self._freeze(worker, self._chance.uniform(8, 12))

    def blink(self, worker: Worker) -> None:
        """For less than its session."""
        self._freeze(worker, self._chance.uniform(0.5, 3))

    def kill_broker(self, _: Worker) -> None:
        self._stack.signal("kafka", signal.SIGKILL)
        time.sleep(1)
        self._stack.wait_until_back("kafka")

    def _freeze(self, worker: Worker, seconds: float) -> None:
        worker.signal(signal.SIGSTOP)
        time.sleep(seconds)
        worker.signal(signal.SIGCONT)


@pytest.mark.timeout(SECONDS * 3 + 600)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_wrong_or_notified_twice(own_stack: OwnStack, tmp_path: Path, seed: int) -> None:
    connection = Connection(own_stack.endpoints.bootstrap_servers, own_stack.endpoints.registry_url, {})
    apply_topics(connection.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    connection.registry.register(topics.ALL)
    workers = [Worker(tmp_path, connection) for _ in range(WORKERS)]
    misfortunes = Misfortunes(seed, workers, own_stack)
    load = Load(connection, seed, at_once=10)
    misfortunes.revive()
    try:
        misfortunes.run(SECONDS)
    finally:
        load.stop()
    sys.stdout.write("\n".join([f"seed {seed}:", *misfortunes.times, ""]))
    try:

        def settled() -> bool:
            misfortunes.revive()
            return caught_up(connection)

        wait_until(settled, timeout_s=300, what="all events are processed")
        assert_all_is_right(connection, lambda topic: read_topic(connection, topic))
        assert_notified_exactly_once(connection, lambda topic: read_topic(connection, topic))
    finally:
        for worker in workers:
            worker.kill()
        connection.close()
