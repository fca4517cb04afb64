"""Services that are replaced by those of another release while a simulated company posts callbacks."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import httpx2
from faust.types import TP

from support.background import InBackground
from support.center_process import Line, lists_of
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN
from support.edge.process import RunningEdge
from support.edge.process import wait_until as wait_within
from support.forked import taskbridge
from support.streams.lives import caught_up, expected, read_topic
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.edge.server.sockets import listen
from taskbridge.local.company import EMPLOYEES
from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.local.simulation import SimulatedApp, Simulation
from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS
from taskbridge.schemas.views import views
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.transactions.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from support.center_process import CenterProcess
    from support.forked import ForkedService
    from support.streams.processes import Worker
    from taskbridge.cli.connection import Connection
    from taskbridge.local.simulation import Posting

RATE = float(os.environ.get("TASKBRIDGE_UPGRADE_RATE", "10"))
ANSWER_WITHIN_S = 60
MOST_AT_ONCE = 100
"""Connections. The edge closes those above the number it can serve, as it does slow senders'."""

wait_until = partial(wait_within, timeout_s=180)
"""The machine may be busy: the test is not about speed, only that an answer arrives while the sender waits."""


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

    def assert_all_arrived(self, connection: Connection) -> None:
        """Each callback was answered 200, and its event is on the topic and processed."""
        # What Kafka acknowledges late on a busy machine is in a spool for a moment.
        wait_until(lambda: all(each.has_drained() for each in self._edges), what="the spools are empty")
        wait_until(lambda: caught_up(connection), what="all events are processed")
        assert set(self.outcomes) == {"200"}
        assert self.event_ids == set(event_ids(connection))

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


def operate(python: str, connection: Connection, *command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Run the program ``taskbridge`` of this environment; it must end well."""
    environment = {
        **environment,
        "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
        "TASKBRIDGE_SCHEMA_REGISTRY_URL": connection.registry_url,
    }
    if python == sys.executable:
        done = taskbridge(*command, environment=environment, timeout=180)
    else:
        argv = [python, "-m", "taskbridge.cli", *command]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def roll(service: ForkedService, python: str) -> None:
    """End the one that runs, then start that of this environment."""
    if service.process is not None:
        assert service.end(signal.SIGTERM) == 0
    service.python = python
    service.start()


def event_ids(connection: Connection) -> Counter[str]:
    """Those that are on the topic, with how often."""
    decode = task_event_codec(connection.registry).decode
    return Counter(decode(each.value()).event_id for each in read_topic(connection, TASK_EVENTS.name))


def folded(connection: Connection) -> None:
    """Return when the workers have committed all present records of the events topic."""
    offsets = Offsets(consumer_config(connection.bootstrap_servers, "tests"))
    ends = offsets.ends(TASK_EVENTS.name, range(DEFAULT_PARTITIONS))

    def done() -> bool:
        found = offsets.committed(APP_ID, [TP(TASK_EVENTS.name, each) for each, end in ends.items() if end])
        return all(each.offset >= ends[tp.partition] for tp, each in found.items())

    wait_until(done, what="all present events are folded")


def shared(workers: Sequence[Worker]) -> None:
    """Return when the workers have all partitions."""

    def share() -> bool:
        assert [each.process.poll() for each in workers if each.process] == [None] * len(workers), "a worker has ended"
        found = [each.readiness(timeout_s=10) for each in workers]
        # One that starts slowly is missed by the other meanwhile, which then has all of them.
        if not all(each.get("ready") for each in found):
            return False
        held: list[list[int]] = [each["partitions"]["active"] for each in found]
        return all(held) and sorted(itertools.chain(*held)) == [*range(DEFAULT_PARTITIONS)]

    wait_until(share, what="the workers share the partitions")


def right_lists(connection: Connection) -> dict[str, set[Line]]:
    """The entries of each person, as the events on the topic have them."""
    right: dict[str, set[Line]] = {each.user_id: set() for each in EMPLOYEES}
    for key, instance in expected(connection, partial(read_topic, connection)).items():
        for line in views(instance.state):
            right.setdefault(line.user_id, set()).add(Line(str(line.view).lower(), key, line.task_id))
    return right


def lists(center: CenterProcess, people: Iterable[str]) -> dict[str, set[Line]]:
    """What people see in the center."""
    return {each: {*(lists_of(center.url, CORP_ID, each) or {})} for each in people}
