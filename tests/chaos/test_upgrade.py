"""A release replaces the previous one while callbacks keep coming: none is refused, and nothing is lost.

The way of docs/how-to/upgrade.md: the center starts next to the previous release, then streams workers are replaced all
together.

The one before is installed from its own wheels: see ``support/wheels.py``. TASKBRIDGE_UPGRADE_FROM=COMMIT rolls from an
older one, TASKBRIDGE_UPGRADE_RATE=200 with more callbacks a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from faust.types import TP

from support.background import InBackground
from support.center_process import CenterProcess, Line, lists_of
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN
from support.edge.process import OwnStack, RunningEdge
from support.edge.process import wait_until as wait_within
from support.forked import taskbridge
from support.streams.lives import (
    assert_all_is_right,
    assert_notified_exactly_once,
    caught_up,
    expected,
    notifications_on_topic,
    read_topic,
    remove_workers,
    topics_on,
)
from support.streams.processes import Rebuild, Worker, pending_notifications
from support.wheels import previous_release
from taskbridge.cli.connection import Connection
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.server.sockets import listen
from taskbridge.local.company import EMPLOYEES
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.local.simulation import SimulatedApp, Simulation
from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas.codec import task_event_codec, task_state_codec
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS
from taskbridge.schemas.views import views
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.table_versions import UNUSED_TOPICS
from taskbridge.streams.transactions.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from support.wheels import PreviousRelease
    from taskbridge.local.simulation import Posting

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

RATE = float(os.environ.get("TASKBRIDGE_UPGRADE_RATE", "20"))
ANSWER_WITHIN_S = 60
MOST_AT_ONCE = 100
"""Connections. The edge closes those above the number it can serve, as it does slow senders'."""

wait_until = partial(wait_within, timeout_s=180)
"""The machine may be busy: the test is not about speed, only that an answer arrives while the sender waits."""


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


class Edge(RunningEdge):
    """One of either release, at a socket that is held as systemd holds it, with the same data folder."""

    def __init__(self, folder: Path, connection: Connection) -> None:
        folder.mkdir()
        super().__init__(
            folder,
            bootstrap_servers=connection.bootstrap_servers,
            registry_url=connection.registry_url,
            EDGE_KAFKA_TIMEOUT_MS="500",
        )
        self._servers = connection.bootstrap_servers
        self.sockets = listen(LOOPBACK, self.port)

    def roll(self, python: str, *, reaches_kafka: bool = True) -> None:
        """End the one that runs, then start that of this environment."""
        if self.process is not None:
            assert self.stop() == 0
        self.argv[0] = python
        self.environment["EDGE_KAFKA_BOOTSTRAP_SERVERS"] = (
            self._servers if reaches_kafka else f"{LOOPBACK}:{free_port()}"
        )
        self.start()

    def has_spooled(self) -> bool:
        return bool(self.metric("taskbridge_edge_spool_depth"))

    def close(self) -> None:
        self.kill_if_running()
        for each in self.sockets:
            each.close()


class Company(InBackground):
    """Posts what a simulated company does to one edge or the other, each callback on a connection of its own, once."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        super().__init__()
        self.outcomes: Counter[str] = Counter()
        self.event_ids: set[str] = set()
        self.slowest_s = 0.0
        self._edges = list(edges)
        self._simulation = Simulation([SimulatedApp(APP_TYPE, CORP_ID, SYSTEM_TOKEN)], seed=65, chaos=0.1)
        self._answered: Counter[Edge] = Counter()

    def served(self, edge: Edge, more: int = int(RATE)) -> None:
        """Return when this edge has answered so many more."""
        before = self._answered[edge]
        wait_until(lambda: self._answered[edge] >= before + more, what=f"{more} more are answered")

    def work(self) -> None:
        asyncio.run(self._post_all())

    async def _post_all(self) -> None:
        due, edges = time.monotonic(), itertools.cycle(self._edges)
        limits, room = httpx2.Limits(max_keepalive_connections=0), asyncio.Semaphore(MOST_AT_ONCE)
        async with (
            httpx2.AsyncClient(timeout=ANSWER_WITHIN_S, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as group,
        ):
            while not self.is_over.is_set():
                posting = self._simulation.next(time.time_ns() // 1_000_000)
                await room.acquire()
                task = group.create_task(self._post(client, next(edges), posting))
                task.add_done_callback(lambda _: room.release())
                # What a busy machine could not post in time is not posted in a burst later.
                due = max(due + 1 / RATE, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _post(self, client: httpx2.AsyncClient, edge: Edge, posting: Posting) -> None:
        request = encode_callback(signed(posting.parameters, system_token=SYSTEM_TOKEN), posting.encoding)
        began, url = time.monotonic(), f"{edge.url}/yida/tasks/{posting.action}?{request.query}"
        try:
            answer = await client.post(url, content=request.body, headers=dict(request.headers))
        except httpx2.HTTPError as error:
            self.outcomes[type(error).__name__] += 1
            return
        self.outcomes[str(answer.status_code)] += 1
        if answer.status_code == 200:
            self.event_ids.add(answer.json()["eventId"])
            self._answered[edge] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)


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


def operate(python: str, connection: Connection, *command: str) -> None:
    """Run the program ``taskbridge`` of this environment; it must end well."""
    environment = {
        **os.environ,
        "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
        "TASKBRIDGE_SCHEMA_REGISTRY_URL": connection.registry_url,
    }
    if python == sys.executable:
        done = taskbridge(*command, environment=environment, timeout=180)
    else:
        argv = [python, "-m", "taskbridge.cli", *command]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def roll(worker: Worker, python: str) -> None:
    if worker.process is not None:
        assert worker.end(signal.SIGTERM) == 0
    worker.python = python
    worker.start()


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

    def event_ids(self) -> Counter[str]:
        """Those that are on the topic, with how often."""
        decode = task_event_codec(self.connection.registry).decode
        return Counter(decode(each.value()).event_id for each in self.read(TASK_EVENTS.name))

    def folded(self) -> None:
        """Return when the workers have committed all present records of the events topic."""
        offsets = Offsets(consumer_config(self.connection.bootstrap_servers, "tests"))
        ends = offsets.ends(TASK_EVENTS.name, range(DEFAULT_PARTITIONS))

        def done() -> bool:
            found = offsets.committed(APP_ID, [TP(TASK_EVENTS.name, each) for each, end in ends.items() if end])
            return all(each.offset >= ends[tp.partition] for tp, each in found.items())

        wait_until(done, what="all present events are folded")

    def shared(self) -> None:
        """Return when the workers have all partitions."""
        everyone = list(self.workers)

        def share() -> bool:
            assert [each.process.poll() for each in everyone if each.process] == [None, None], "a worker has ended"
            found = [each.readiness(timeout_s=10) for each in everyone]
            # One that starts slowly is missed by the other meanwhile, which then has all of them.
            if not all(each.get("ready") for each in found):
                return False
            held: list[list[int]] = [each["partitions"]["active"] for each in found]
            return all(held) and sorted(itertools.chain(*held)) == [*range(DEFAULT_PARTITIONS)]

        wait_until(share, what="the workers share the partitions")

    def replace_workers(self, python: str) -> None:
        """All together: the two kinds cannot share the group, so the ended ones leave it before their session is over.

        That a worker waits for this by itself is shown before, when the second of the old workers ends.
        """
        for worker in self.workers:
            assert worker.end(signal.SIGTERM) == 0
        remove_workers(self.connection)
        for worker in self.workers:
            roll(worker, python)
        self.shared()

    def lists(self, people: Iterable[str]) -> dict[str, set[Line]]:
        """What people see in the center."""
        return {each: {*(lists_of(self.center.url, CORP_ID, each) or {})} for each in people}

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
    rollout.shared()
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
        rollout.folded()
        say("an edge was rolled on, back and on again, and the old workers have folded what it sent")

        rollout.center.start()
        wait_until(rollout.center.is_ready, what="the center has filled itself next to the previous release")
        say("the center is ready")

        # A new worker waits for the end of the old ones, which go on meanwhile.
        one, other = rollout.workers
        roll(one, new)
        wait_until(
            lambda: "workers of an older release are running" in str(one.readiness().get("problems")),
            what="the new worker says what it waits for",
        )
        company.served(first)
        rollout.folded()
        roll(other, new)
        rollout.shared()
        say("the workers were rolled on")
        # The new workers restore what the old ones wrote; rolled back, the old ones restore what those wrote.
        for python in (old, new):
            rollout.replace_workers(python)
            company.served(first)
            rollout.folded()
            say(f"the workers were rolled {'back' if python == old else 'on'}")
        second.roll(new)
        company.served(second)
        say("all are new")
    # What Kafka acknowledges late on a busy machine is in a spool for a moment.
    wait_until(lambda: first.has_drained() and second.has_drained(), what="the spools are empty")
    wait_until(lambda: caught_up(rollout.connection), what="all events are processed")
    say(f"{dict(company.outcomes)}, the slowest took {company.slowest_s:.1f} s")
    assert set(company.outcomes) == {"200"}
    assert company.event_ids == set(rollout.event_ids())
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
    notifications, times = notifications_on_topic(connection, read), rollout.event_ids()
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
    rollout.shared()
    wait_until(lambda: not pending_notifications(connection), what="the workers have published all again")
    assert_all_is_right(connection, read, counted=not {"TaskState"} & set(rollout.previous.changed()))
    right: dict[str, set[Line]] = {each.user_id: set() for each in EMPLOYEES}
    for key, instance in expected(connection, read).items():
        for line in views(instance.state):
            right.setdefault(line.user_id, set()).add(Line(str(line.view).lower(), key, line.task_id))
    wait_until(lambda: rollout.lists(right) == right, what="the center's lists are as the events say")
    operate(sys.executable, connection, "topics", "apply", "--delete-unused")
    assert UNUSED_TOPICS[0] not in topics_on(connection)
    rollout.say("all is right\n")
