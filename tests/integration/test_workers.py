"""Several workers: the partitions of one that is killed or frozen go on from a warm standby, and nothing is lost."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from support.streams.lives import assert_all_is_right, assert_notified_exactly_once, caught_up, lives, produce
from support.streams.processes import Load, Worker
from taskbridge.streams.monitoring.watchdog import TimesStuck

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("as_if_nothing_ran")]


@pytest.fixture
def pair(connection: Connection, tmp_path: Path) -> Generator[tuple[Worker, Worker]]:
    workers = (Worker(tmp_path, connection), Worker(tmp_path, connection))
    yield workers
    for worker in workers:
        worker.kill()


def test_partitions_of_a_killed_and_a_frozen_worker_move_and_their_late_writes_do_not_count(
    connection: Connection,
    pair: tuple[Worker, Worker],
    read_topic: Callable[[str], list[Message]],
    eventually: Any,
) -> None:
    first, second = pair
    first.start()
    eventually(first.is_ready, what="the first worker is ready")
    load = Load(connection, seed=11, at_once=10)
    try:
        second.start()
        eventually(partial(shares, first, second), what="both have partitions, and standbys of the other's")

        second.end(signal.SIGKILL)
        eventually(partial(owns_all, first), what="the first owns everything")
        assert restored(first) < 500, "it went on from a warm standby, not from the start of the changelog"

        second.start()
        eventually(partial(shares, first, second), what="both have partitions again")
        # Frozen in the midst of its work, for longer than its session.
        first.signal(signal.SIGSTOP)
        eventually(partial(owns_all, second), what="the second owns everything")
        time.sleep(1)
        first.signal(signal.SIGCONT)
        # Its next write is refused; a supervisor would restart it.
        assert first.exit_code() == 1
        assert "Fenced" in first.log_path.read_text()
    finally:
        load.stop()
    eventually(lambda: caught_up(connection), what="all events are processed")
    assert_all_is_right(connection, read_topic)
    assert_notified_exactly_once(connection, read_topic)
    assert second.end(signal.SIGTERM) == 0


_STUCK = """
import asyncio
from taskbridge.streams import worker
from taskbridge.streams.instances.task_agent import TaskAgent
worker.WATCHDOG_S = 3
async def never(*_):
    await asyncio.Event().wait()
TaskAgent._end = never
from taskbridge.streams.app import main
main()
"""


def test_a_worker_whose_agent_hangs_exits_and_logs_why(connection: Connection, tmp_path: Path) -> None:
    produce(connection, lives(1, seed=12))
    worker = Worker(tmp_path, connection)
    worker.start(_STUCK)
    try:
        assert worker.exit_code() == 1
    finally:
        worker.kill()
    assert "worker_stalled" in worker.log_path.read_text()
    # It was not scraped in time: the next worker exposes it.
    assert TimesStuck(worker.data_dir).count() == 1


def shares(*workers: Worker) -> bool:
    found = [each.readiness() for each in workers]
    return all(each.get("ready") and each["partitions"]["active"] and each["partitions"]["standby"] for each in found)


def owns_all(worker: Worker) -> bool:
    found = worker.readiness()
    return bool(found.get("ready")) and len(found["partitions"]["active"]) == 12


def restored(worker: Worker) -> int:
    """Changelog records that its last takeover had to read."""
    return int(worker.readiness()["recovery"]["records"])
