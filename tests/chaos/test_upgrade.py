"""A release replaces the previous one while callbacks keep coming: none is refused, and nothing is lost.

The way of docs/how-to/upgrade.md: the center starts next to the previous release, then streams workers are replaced all
together.

The one before is installed from its own wheels: see ``support/wheels.py``. TASKBRIDGE_UPGRADE_FROM=COMMIT rolls from an
older one, TASKBRIDGE_UPGRADE_RATE=200 with more callbacks a second.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from support.center_process import CenterProcess
from support.edge.process import OwnStack
from support.streams.lives import (
    assert_all_is_right,
    assert_notified_exactly_once,
    expected,
    notifications_on_topic,
    read_topic,
    remove_workers,
    topics_on,
)
from support.streams.processes import Rebuild, Worker, pending_notifications
from support.upgrade import (
    Company,
    Edge,
    event_ids,
    folded,
    lists,
    operate,
    right_lists,
    roll,
    shared,
    wait_until,
)
from support.wheels import previous_release
from taskbridge.cli.connection import Connection
from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.views import views
from taskbridge.streams.table_versions import UNUSED_TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from support.wheels import PreviousRelease

pytestmark = [pytest.mark.integration, pytest.mark.disasters]


@pytest.fixture(scope="module")
def previous(disk_folder: Callable[[], Path]) -> PreviousRelease:
    return previous_release(disk_folder())


@pytest.fixture
def connection(previous: PreviousRelease, tmp_path: Path) -> Generator[Connection]:
    """A Kafka and a registry with the previous release's topics and schemas."""
    stack = OwnStack(tmp_path / "stack")
    found = Connection(stack.endpoints.bootstrap_servers, stack.endpoints.registry_url, {})
    operate(previous.python, found, "topics", "apply")
    operate(previous.python, found, "schemas", "register")
    yield found
    found.close()
    stack.stop()


class Subscriber:
    """The previous release's example of a subscriber, with its client."""

    def __init__(self, previous: PreviousRelease, connection: Connection, folder: Path) -> None:
        self._file = folder / "lists.sqlite"
        program = previous.sources / "examples" / "python" / "subscriber.py"
        argv = [program, connection.bootstrap_servers, connection.registry_url, self._file]
        self._process = subprocess.Popen([previous.python, *map(str, argv)])

    def seen(self) -> set[str]:
        return {each for (each,) in self._query("SELECT notification_id FROM seen")}

    def lines(self) -> set[tuple[str, str, str, str | None]]:
        """Of everybody's lists: the instance, whose it is, the view, and the task."""
        return {*self._query("SELECT instance_id, user_id, view, nullif(task_id, '') FROM entries")}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _query(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self._file, timeout=60)) as database:
            return database.execute(query).fetchall()


class Rollout:
    """Two edges, two workers, and a subscriber that is not upgraded. Each step is logged with its seconds."""

    def __init__(self, previous: PreviousRelease, connection: Connection, folder: Path) -> None:
        self.previous = previous
        self.connection = connection
        self.read = partial(read_topic, connection)
        self.edges = Edge(folder / "edge-1", connection), Edge(folder / "edge-2", connection)
        # A session that a busy machine does not end.
        self.workers = tuple(Worker(folder, connection, STREAMS_SESSION_TIMEOUT_S="12") for _ in range(2))
        self.center = CenterProcess(folder, connection)
        self.subscriber = Subscriber(previous, connection, folder)
        self.rebuild = Rebuild(connection, folder)
        self._at = time.monotonic()

    def say(self, line: str) -> None:
        now = time.monotonic()
        sys.stderr.write(f"\n[upgrade] {now - self._at:4.1f} s  {line}")
        self._at = now

    def replace_workers(self, python: str) -> None:
        """All together: the two kinds cannot share the group, so the ended ones leave it before their session is over.

        That a worker waits for this by itself is shown before, when the second of the old workers ends.
        """
        for worker in self.workers:
            assert worker.end(signal.SIGTERM) == 0
        remove_workers(self.connection)
        for worker in self.workers:
            roll(worker, python)
        shared(self.workers)

    def close(self) -> None:
        self.subscriber.kill()
        self.center.kill()
        self.center.show_log()
        self.rebuild.kill_if_running()
        self.rebuild.show_log()
        for edge in self.edges:
            edge.close()
        for worker in self.workers:
            print(worker.readiness())  # noqa: T201 - shown with a failure
            worker.kill()
            worker.show_log()


@pytest.fixture
def rollout(previous: PreviousRelease, connection: Connection, tmp_path: Path) -> Generator[Rollout]:
    found = Rollout(previous, connection, tmp_path)
    yield found
    found.close()


@pytest.mark.timeout(900)
def test_a_release_is_rolled_over_the_one_before_and_no_callback_is_refused_or_lost(rollout: Rollout) -> None:
    (first, second), say = rollout.edges, rollout.say
    old, new = rollout.previous.python, sys.executable
    for worker in rollout.workers:
        roll(worker, old)
    # The first edge is cut off from Kafka: what it answers is in its spool alone.
    first.roll(old, reaches_kafka=False)
    second.roll(old)
    shared(rollout.workers)
    say(f"all are of {rollout.previous.commit}; other schemas: {', '.join(rollout.previous.changed()) or 'none'}")
    with Company(rollout.edges) as company:
        company.served(first)
        company.served(second)
        wait_until(first.has_spooled, what="the spool is in use")
        operate(new, rollout.connection, "schemas", "register")
        operate(new, rollout.connection, "topics", "apply")
        say("schemas and topics are the new ones")

        # The new edge takes over the spool, and adds to it; rolled back, the old one delivers both.
        first.roll(new, reaches_kafka=False)
        company.served(first)
        first.roll(old)
        wait_until(first.has_drained, what="the spool is empty")
        first.roll(new)
        company.served(first)
        folded(rollout.connection)
        say("an edge was rolled on, back and on again, and the old workers have folded what it sent")

        rollout.center.start()
        wait_until(rollout.center.is_ready, what="the center has filled itself next to the previous release")
        say("the center is ready")

        one, other = rollout.workers
        roll(one, new)
        if UNUSED_TOPICS[0] in topics_on(rollout.connection):
            # Of older tables: a new worker waits for the end of the old ones, which go on meanwhile.
            wait_until(
                lambda: "workers of an older release are running" in str(one.readiness().get("problems")),
                what="the new worker says what it waits for",
            )
        company.served(first)
        folded(rollout.connection)
        roll(other, new)
        shared(rollout.workers)
        say("the workers were rolled on")
        # The new workers restore what the old ones wrote; rolled back, the old ones restore what those wrote.
        for python in (old, new):
            rollout.replace_workers(python)
            company.served(first)
            folded(rollout.connection)
            say(f"the workers were rolled {'back' if python == old else 'on'}")
        second.roll(new)
        company.served(second)
        say("all are new")
    say(f"{dict(company.outcomes)}, the slowest took {company.slowest_s:.1f} s")
    company.assert_all_arrived(rollout.connection)
    assert_all_is_right_as_it_was_known(rollout)
    assert_all_is_right_in_the_end(rollout)


def assert_all_is_right_as_it_was_known(rollout: Rollout) -> None:
    """All that the previous release wrote is right, nothing was notified twice, and its client has read it all."""
    previous, connection, read = rollout.previous, rollout.connection, rollout.read
    seen = partial(previous.seen, task_state_codec(connection.registry))
    # A change depends on the known state, so revisions and repeats are compared.
    knew_all = not {"TaskState", "TaskNotification"} & set(previous.changed())
    assert_all_is_right(connection, read, counted=knew_all, seen=seen)
    if knew_all:
        assert_notified_exactly_once(connection, read)
    notifications, times = notifications_on_topic(connection, read), event_ids(rollout.connection)
    counts = Counter((each.notification_id, each.event_id) for each in notifications)
    assert [each for each, count in counts.items() if count > times[each[1]]] == []
    ids = {each.notification_id for each in notifications}
    wait_until(lambda: rollout.subscriber.seen() == ids, what="the old client has read all")
    assert rollout.subscriber.lines() == {
        (key, line.user_id, str(line.view), line.task_id)
        for key, instance in expected(connection, read).items()
        for line in views(instance.state)
    }
    rollout.say("what the previous release knew is right")


def assert_all_is_right_in_the_end(rollout: Rollout) -> None:
    """Fields that the previous release does not know are missing in its states until all is recomputed."""
    connection, read = rollout.connection, rollout.read
    rollout.rebuild.run()
    rollout.rebuild.run("--republish")
    shared(rollout.workers)
    wait_until(lambda: not pending_notifications(connection), what="the workers have published all again")
    assert_all_is_right(connection, read, counted=not {"TaskState"} & set(rollout.previous.changed()))
    right = right_lists(connection)
    wait_until(lambda: lists(rollout.center, right) == right, what="the center's lists are as the events say")
    operate(sys.executable, connection, "topics", "apply", "--delete-unused")
    assert UNUSED_TOPICS[0] not in topics_on(connection)
    rollout.say("all is right\n")
