"""The example in Python, two of it, through a rebalance and a killed broker: everybody's lists are those of the API."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest
from confluent_kafka import Producer

import plain_http
from own_broker import OwnBroker
from running_workers import Worker
from stream_lives import caught_up, read_topic
from taskbridge.cli.connection import Connection
from taskbridge.cli.demo.company import EMPLOYEES
from taskbridge.cli.demo.simulation import SimulatedApp, Simulation
from taskbridge.client.inbox import Inbox
from taskbridge.client.source import Kafka
from taskbridge.edge.callbacks import event_of, locate
from taskbridge.runtime.kafka import LIBRDKAFKA, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec, task_notification_codec
from taskbridge.schemas.events import View
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from taskbridge.local.endpoints import Endpoints

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
CORP = "ding-company"
VIEWS = [view for view in View if view is not View.UNKNOWN]
CALLBACKS = 500

Entries = list[tuple[str, str | None]]


@pytest.fixture
def broker(tmp_path: Path) -> Generator[OwnBroker]:
    broker = OwnBroker(tmp_path / "kafka")
    yield broker
    broker.stop()


@pytest.fixture
def bridge(broker: OwnBroker, stack: Endpoints) -> Generator[Connection]:
    found = Connection(broker.servers, stack.registry_url, {})
    apply_topics(found.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    found.registry.register(topics.ALL)
    yield found
    found.close()


class Example:
    """The example as its page says to start it."""

    def __init__(self, bridge: Connection, file: Path) -> None:
        page = (ROOT / "docs" / "consumers" / "python.md").read_text("utf-8")
        (command,) = re.findall(r"^uv run python (examples/.*)$", page, re.MULTILINE)
        script, _, _, _ = shlex.split(command)
        argv = [sys.executable, script, bridge.bootstrap_servers, bridge.registry_url, str(file)]
        with file.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, stderr=log)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class CompanyAtWork:
    """A thread that writes what a simulated company does to the events topic, some fifty callbacks a second."""

    def __init__(self, bridge: Connection) -> None:
        self._bridge = bridge
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    @property
    def is_at_work(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        simulation = Simulation([SimulatedApp("APP_1", CORP, "T")], seed=12, chaos=0.1)
        codec = task_event_codec(self._bridge.registry)
        # However long the broker needs to come back.
        config = producer_config(self._bridge.bootstrap_servers, {"message.timeout.ms": "0"})
        producer = Producer(cast("dict[str, Any]", config), logger=LIBRDKAFKA)
        for _ in range(CALLBACKS):
            now_ms = time.time_ns() // 1_000_000
            posting = simulation.next(now_ms)
            event = event_of(locate(posting.action, posting.parameters), posting.parameters, received_at=now_ms)
            producer.produce(TASK_EVENTS.name, key=event.instance_id.encode(), value=codec.encode(event))
            time.sleep(0.02)
        producer.flush()


def lists_of_the_api(worker: Worker) -> dict[tuple[str, View], Entries]:
    found: dict[tuple[str, View], Entries] = {}
    for employee in EMPLOYEES:
        for view in VIEWS:
            path = f"/v1/corps/{CORP}/users/{quote(employee.user_id)}/tasks"
            query: dict[str, Any] = {"view": view.lower(), "limit": 200}
            entries = found[employee.user_id, view] = []
            while query:
                page = plain_http.get(f"http://127.0.0.1:{worker.port}{path}", params=query, timeout=10).json()
                entries += [(item["instance_id"], item["task_id"]) for item in page["items"]]
                query = {**query, "cursor": page["next_cursor"]} if page["next_cursor"] else {}
    return found


def lists_of_the_example(file: Path) -> dict[tuple[str, View], Entries]:
    """In the order of the API: entered last, shown first."""
    found: dict[tuple[str, View], Entries] = {(each.user_id, view): [] for each in EMPLOYEES for view in VIEWS}
    asked = "SELECT user_id, view, instance_id, nullif(task_id, '') FROM entries WHERE corp_id = ?"
    with contextlib.closing(sqlite3.connect(file)) as kept:
        for user_id, view, *entry in kept.execute(f"{asked} ORDER BY entered_at DESC, instance_id, task_id", [CORP]):
            found[user_id, View(view)].append((entry[0], entry[1]))
    return found


def seen(file: Path) -> set[str]:
    if not file.exists():
        return set()
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as kept, contextlib.suppress(sqlite3.OperationalError):
        return {each for (each,) in kept.execute("SELECT notification_id FROM seen")}
    return set()


def told(bridge: Connection) -> set[str]:
    codec = task_notification_codec(bridge.registry)
    return {codec.decode(each.value()).notification_id for each in read_topic(bridge, TASK_NOTIFICATIONS.name)}


def lists_of_an_inbox(bridge: Connection) -> Mapping[tuple[str, View], Entries]:
    async def keep() -> dict[tuple[str, View], Entries]:
        async with Inbox(Kafka(bridge.bootstrap_servers, bridge.registry_url), corp=CORP) as inbox:
            return {
                (each.user_id, view): [
                    (entry.instance_id, entry.task_id) for entry in inbox.entries(CORP, each.user_id, view)
                ]
                for each in EMPLOYEES
                for view in VIEWS
            }

    return asyncio.run(keep())


@pytest.fixture
def start_example(bridge: Connection, tmp_path: Path) -> Generator[Callable[[], Example]]:
    started: list[Example] = []

    def start() -> Example:
        started.append(Example(bridge, tmp_path / "lists.sqlite"))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def worker(bridge: Connection, tmp_path: Path) -> Generator[Worker]:
    worker = Worker(tmp_path, bridge)
    yield worker
    worker.kill_if_running()


def test_lists_are_those_of_the_api_after_a_rebalance_and_a_killed_broker(  # noqa: PLR0917 - fixtures
    broker: OwnBroker,
    bridge: Connection,
    worker: Worker,
    start_example: Callable[[], Example],
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    file = tmp_path / "lists.sqlite"

    def works() -> bool:
        """As ``up`` does, it starts a worker again that died of its broker's death."""
        assert worker.process is not None
        if worker.process.poll() is not None:
            worker.start()
        return worker.is_ready()

    worker.start()
    eventually(works, what="the worker is ready")
    company = CompanyAtWork(bridge)
    first = start_example()
    eventually(lambda: len(seen(file)) > 20, what="the first reads")
    second = start_example()
    eventually(lambda: members_with_partitions(bridge) == 2, what="the second has partitions")
    # In the midst of a join: when librdkafka is told of another coordinator then, it would not read any more.
    broker.change_files(lambda: None)
    assert company.is_at_work, "the broker was killed while people were told"
    company.join()
    eventually(works, what="the worker is ready again")

    def all_is_told() -> bool:
        lag = worker.readiness().get("lag", {})
        return lag.get("events") == 0 and lag.get("notifications") == 0

    eventually(lambda: works() and caught_up(bridge) and all_is_told(), what="everybody is told everything")
    eventually(lambda: seen(file) == told(bridge), what="all that was told is in the lists, and nothing else")
    right = lists_of_the_api(worker)
    assert sum(map(len, right.values())) > 300
    assert lists_of_the_example(file) == right
    assert lists_of_an_inbox(bridge) == right
    assert [each.stop() for each in (second, first)] == [0, 0]


def members_with_partitions(bridge: Connection) -> int:
    admin = bridge.admin()  # held on to until it has answered
    described = cast("dict[str, Any]", admin.describe_consumer_groups(["example-python"]))
    members: list[Any] = described["example-python"].result(10).members
    return sum(bool(each.assignment and each.assignment.topic_partitions) for each in members)
