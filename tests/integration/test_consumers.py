"""The examples, two of each, through a rebalance and a killed broker: everybody's lists are those of the API.

Receivers of webhooks get the same, through kills of themselves and of the service that sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest
from confluent_kafka import Producer

from support import http_clients, needs, toolchains
from support.center_process import CenterProcess
from support.kafka.brokers import OwnBroker
from support.streams.lives import caught_up, read_topic
from support.streams.processes import Worker
from support.webhooks_process import SECRET, WebhooksProcess
from taskbridge.cli.connection import Connection
from taskbridge.client.inbox import Inbox
from taskbridge.client.source import Kafka
from taskbridge.client.testing import notification
from taskbridge.edge.decision.callbacks import event_of, locate
from taskbridge.local.company import EMPLOYEES
from taskbridge.local.host import free_ports
from taskbridge.local.simulation import SimulatedApp, Simulation
from taskbridge.runtime.kafka import LIBRDKAFKA, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import task_event_codec, task_notification_codec
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import View, notification_key
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS
from taskbridge.streams.transactions.offsets import describe_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping
    from typing import Self

    from taskbridge.local.jvm import Endpoints

pytestmark = [pytest.mark.integration, pytest.mark.consumers, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "consumers"
CORP = "ding-company"
VIEWS = [view for view in View if view is not View.UNKNOWN]
LANGUAGES = {"node": 0, "java": 128 + signal.SIGTERM, "spring": 128 + signal.SIGTERM, "go": 0, "python": 0}
"""The exit code of each after SIGTERM. The last to join is still joining when the broker dies."""
RECEIVERS = {"python": -signal.SIGTERM, "java": 128 + signal.SIGTERM}
"""The same of those of webhooks, in the order of their page."""

_GAVE_UP = 1

Entries = list[tuple[str, str | None]]
Lists = dict[tuple[str, View], Entries]


class Example:
    """The example of a language, built and started as its page says."""

    def __init__(self, name: str, lines: list[str], folder: Path, programs: Path) -> None:
        self.group = f"example-{name}"
        self.file = folder / f"{name}.sqlite"
        self._log = folder / f"{name}.log"
        *self._build, self._start = lines
        self._place = next((each for each in self._build if each.startswith("cd ")), "cd .")
        quickly = {**toolchains.GO_QUICKLY, **toolchains.JAVA_QUICKLY}
        self._environment = {**os.environ, **quickly, "PATH": f"{programs}:{os.environ['PATH']}"}
        self._running: list[subprocess.Popen[bytes]] = []
        self._command = ""

    def build(self) -> None:
        assert self._type("\n".join(["set -e", *self._build])).wait(1200) == 0, f"{self.group}: {self.log()}"

    def start(self, here: Mapping[str, str]) -> None:
        """``here``: what replaces the page's addresses."""
        command = re.sub(r"\buv run( --with \w+)? python\b", lambda _: shlex.quote(sys.executable), self._start)
        for documented, here_is in {**here, "lists.sqlite": shlex.quote(str(self.file))}.items():
            assert documented in command, f"{command} does not name {documented}"
            command = command.replace(documented, here_is)
        self._command = f"{self._place}\nexec env {command}"
        self._running.append(self._type(self._command))

    def start_again(self) -> Self:
        """Restart those that gave up, as a supervisor does: a registry may be busy for longer than they wait for it."""
        self._running = [self._type(self._command) if each.poll() == _GAVE_UP else each for each in self._running]
        return self

    def _type(self, commands: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", commands], cwd=ROOT, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self) -> list[int]:
        for each in self._running:
            each.send_signal(signal.SIGTERM)
        return [each.wait(60) for each in self._running]

    def kill(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()
        self._running.clear()

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def seen(self) -> set[str]:
        if not self.file.exists():
            return set()
        with contextlib.closing(sqlite3.connect(self.file, timeout=60)) as database:
            try:
                return {each for (each,) in database.execute("SELECT notification_id FROM seen")}
            except sqlite3.OperationalError:  # it has no tables yet
                return set()

    def lists(self) -> Lists:
        """In the order of the API: entered last, shown first."""
        found: Lists = {(each.user_id, view): [] for each in EMPLOYEES for view in VIEWS}
        query = "SELECT user_id, view, instance_id, nullif(task_id, '') FROM entries WHERE corp_id = ?"
        with contextlib.closing(sqlite3.connect(self.file)) as database:
            for user_id, view, *entry in database.execute(
                f"{query} ORDER BY entered_at DESC, instance_id, task_id", [CORP]
            ):
                found[user_id, View(view.upper())].append((entry[0], entry[1]))
        return found

    def members(self, bridge: Connection) -> list[Any]:
        return describe_group(bridge.admin(), self.group).members


def commands_of(page: str) -> list[list[str]]:
    """The lines of each block of the page that is typed."""
    text = (PAGES / f"{page}.md").read_text("utf-8")
    return [each.splitlines() for each in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


class Receiving:
    """The service of webhooks, and a receiver in each of these languages, on ports that stay the same."""

    def __init__(self, folder: Path, programs: Path, languages: Collection[str]) -> None:
        self._folder, self._ports = folder, dict(zip(languages, free_ports(len(languages)), strict=True))
        self.receivers = {
            each: Example(f"webhooks-{each}", lines, folder, programs)
            for each, lines in zip(RECEIVERS, commands_of("webhooks"), strict=False)
            if each in languages
        }
        self.service: WebhooksProcess | None = None

    def start(self, bridge: Connection) -> WebhooksProcess:
        endpoints = {each: f"http://127.0.0.1:{port}/hooks/tasks" for each, port in self._ports.items()}
        self.service = WebhooksProcess(self._folder, bridge, endpoints, corp=CORP)
        self.service.start()
        self.start_receivers()
        return self.service

    def start_receivers(self) -> None:
        for language, each in self.receivers.items():
            each.start({"8080": str(self._ports[language]), "whsec_…": SECRET})

    def kill(self) -> None:
        if self.service is not None:
            self.service.kill()
        for each in self.receivers.values():
            each.kill()


class CompanyAtWork:
    """A thread that writes what a simulated company does to the events topic: its past, then 20 callbacks a second."""

    def __init__(self, bridge: Connection) -> None:
        self._bridge = bridge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        simulation = Simulation([SimulatedApp("APP_1", CORP, "T")], seed=12, chaos=0.1)
        codec = task_event_codec(self._bridge.registry)
        # However long the broker needs to come back.
        config = producer_config(self._bridge.bootstrap_servers, {"message.timeout.ms": "0"})
        producer = Producer(cast("dict[str, Any]", config), logger=LIBRDKAFKA)
        left = 800
        while not self._stop.wait(0.0 if left > 0 else 0.05):
            left -= 1
            now_ms = time.time_ns() // 1_000_000
            posting = simulation.next(now_ms)
            event = event_of(locate(posting.action, posting.parameters), posting.parameters, received_at=now_ms)
            producer.produce(TASK_EVENTS.name, key=event.instance_id.encode(), value=codec.encode(event))
        producer.flush()


def lists_of_the_api(center: CenterProcess) -> Lists:
    found: Lists = {}
    for employee in EMPLOYEES:
        for view in VIEWS:
            path = f"/v1/corps/{CORP}/users/{quote(employee.user_id)}/tasks"
            query: dict[str, Any] = {"view": view.lower(), "limit": 200}
            entries = found[employee.user_id, view] = []
            while query:
                page = http_clients.get(f"{center.url}{path}", params=query).json()
                entries += [(item["instance_id"], item["task_id"]) for item in page["items"]]
                query = {**query, "cursor": page["next_cursor"]} if page["next_cursor"] else {}
    return found


def published_ids(bridge: Connection) -> set[str]:
    """The id of each notification."""
    codec = task_notification_codec(bridge.registry)
    found: set[str] = set()
    for each in read_topic(bridge, TASK_NOTIFICATIONS.name):
        with contextlib.suppress(RecordError):
            found.add(codec.decode(each.value()).notification_id)
    return found


def lists_of_an_inbox(bridge: Connection) -> Mapping[tuple[str, View], Entries]:
    async def lists() -> Lists:
        async with Inbox(Kafka(bridge.bootstrap_servers, bridge.registry_url), corp=CORP) as inbox:
            return {
                (each.user_id, view): [
                    (entry.instance_id, entry.task_id) for entry in inbox.entries(CORP, each.user_id, view)
                ]
                for each in EMPLOYEES
                for view in VIEWS
            }

    return asyncio.run(lists())


def write_unreadable_records(bridge: Connection) -> None:
    """Values of other programs, and records of an aborted transaction."""
    never = notification(corp_id=CORP, recipient_id=EMPLOYEES[0].user_id, instance_id="never")
    key = notification_key(CORP, never.recipient_id)
    config = producer_config(bridge.bootstrap_servers, {"transactional.id": "consumers"})
    producer = Producer(cast("dict[str, Any]", config), logger=LIBRDKAFKA)
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in (b"none of ours", bytes([0, 0x7F, 0, 0, 1, 2, 3]), None):
        producer.produce(TASK_NOTIFICATIONS.name, key=key, value=value)
    producer.commit_transaction(60)
    producer.begin_transaction()
    producer.produce(TASK_NOTIFICATIONS.name, key=key, value=task_notification_codec(bridge.registry).encode(never))
    producer.flush()
    producer.abort_transaction(60)


OF_EXAMPLES = "test_lists_are_those_of_the_api_after_a_rebalance_and_a_killed_broker"
OF_RECEIVERS = "test_receivers_of_webhooks_have_the_lists_of_the_api_after_kills_of_all_parts"


@pytest.fixture(scope="module")
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[dict[str, Example], Receiving]]:
    """The examples of the selected tests, built two at a time, and stopped at the end."""
    folder = tmp_path_factory.mktemp("examples")
    for each in ("javac", "cc"):
        needs.program(each)
    programs = toolchains.node_programs(tmp_path_factory.mktemp("bin"))
    selected = {each.name for each in request.session.items if each.path == request.path}
    languages = [each for each in LANGUAGES if f"{OF_EXAMPLES}[{each}]" in selected]
    receivers = [each for each in RECEIVERS if f"{OF_RECEIVERS}[{each}]" in selected]
    lines = {each: [line for block in commands_of(each) for line in block] for each in languages}
    found = {each: Example(each, lines[each], folder, programs) for each in languages}
    receiving = Receiving(folder, programs, receivers)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Example.build, (*found.values(), *receiving.receivers.values())))
    yield found, receiving
    receiving.kill()
    for each in found.values():
        each.kill()


@pytest.fixture(scope="module")
def examples(built: tuple[dict[str, Example], Receiving]) -> dict[str, Example]:
    return built[0]


@pytest.fixture(scope="module")
def receiving(built: tuple[dict[str, Example], Receiving]) -> Receiving:
    return built[1]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[OwnBroker]:
    broker = OwnBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def bridge(broker: OwnBroker, stack: Endpoints) -> Generator[Connection]:
    found = Connection(broker.servers, stack.registry_url, {})
    apply_topics(found.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    found.registry.register(topics.ALL)
    yield found
    found.close()


@pytest.fixture(scope="module")
def worker(bridge: Connection, tmp_path_factory: pytest.TempPathFactory) -> Generator[Worker]:
    with Worker(tmp_path_factory.mktemp("worker"), bridge) as worker:
        yield worker


@pytest.fixture(scope="module")
def center(bridge: Connection, tmp_path_factory: pytest.TempPathFactory) -> Generator[CenterProcess]:
    with CenterProcess(tmp_path_factory.mktemp("center"), bridge) as center:
        center.start()
        yield center


@dataclass(frozen=True)
class Right:
    notification_ids: set[str]
    lists: Lists


@pytest.fixture(scope="module")
def right(  # noqa: PLR0917
    examples: dict[str, Example],
    receiving: Receiving,
    broker: OwnBroker,
    bridge: Connection,
    worker: Worker,
    center: CenterProcess,
    eventually: Callable[..., Any],
) -> Right:
    """All notifications and lists, after the examples followed, a second one joined and the broker was killed.

    The service of webhooks and its receivers were killed before.
    """

    def works() -> bool:
        """As ``up`` does, it starts a worker again that died of its broker's death."""
        assert worker.process is not None
        if worker.process.poll() is not None:
            worker.start()
        return worker.is_ready()

    here = {"127.0.0.1:9092": bridge.bootstrap_servers, "http://127.0.0.1:8081/apis/ccompat/v7": bridge.registry_url}
    worker.start()
    webhooks = receiving.start(bridge)
    eventually(webhooks.is_ready, what="webhooks are ready")
    write_unreadable_records(bridge)
    eventually(works, what="the worker is ready")
    company = CompanyAtWork(bridge)
    try:
        for each in examples.values():
            each.start(here)
        for language, each in receiving.receivers.items():
            eventually(lambda each=each: len(each.seen()) > 20, what=f"the receiver in {language} has work")
        receiving.kill()
        webhooks.start()
        receiving.start_receivers()
        for language, each in examples.items():
            eventually(lambda each=each: len(each.start_again().seen()) > 20, what=f"the first in {language} reads")
        for language, each in examples.items():
            each.start(here)
            eventually(lambda each=each: is_shared(each, bridge), what=f"a second in {language} joins")
        # During a join: a librdkafka that learns of another coordinator then would stop reading.
        broker.change_files(lambda: None)
    finally:
        company.stop()
    eventually(works, what="the worker is ready again")

    def all_is_published() -> bool:
        return worker.readiness().get("lag", {}).get("events") == 0

    eventually(lambda: works() and caught_up(bridge) and all_is_published(), what="everything is published")
    eventually(center.is_ready, what="the center is ready")
    added_up = lists_of_an_inbox(bridge)
    eventually(lambda: lists_of_the_api(center) == added_up, what="the API shows all of it")
    return Right(published_ids(bridge), lists_of_the_api(center))


def is_shared(example: Example, bridge: Connection) -> bool:
    """Whether both of it have partitions."""
    members = example.start_again().members(bridge)
    return sum(bool(each.assignment and each.assignment.topic_partitions) for each in members) == 2


@pytest.mark.parametrize(
    "language",
    # Spring reads by Java's client, and Go by librdkafka, as Python does.
    [pytest.param(each, marks=pytest.mark.nightly) if each in ("go", "spring") else each for each in LANGUAGES],
)
def test_lists_are_those_of_the_api_after_a_rebalance_and_a_killed_broker(
    language: str, examples: dict[str, Example], right: Right, bridge: Connection, eventually: Callable[..., Any]
) -> None:
    example = examples[language]
    assert sum(map(len, right.lists.values())) > 300
    if language == "node":  # kafkajs looks for a coordinator for seconds only
        eventually(lambda: is_shared(example, bridge), what="both are in the group")
    # A killed broker may be back without a group; then Java's consumer ends.
    eventually(
        lambda: example.start_again().seen() == right.notification_ids, what="the lists have exactly the notifications"
    )
    assert example.lists() == right.lists
    assert example.stop() == [LANGUAGES[language]] * 2, example.log()
    # Sooner than their sessions end.
    eventually(lambda: example.members(bridge) == [], within_s=20, what="they have left the group")


# The receiver in Java is a service of Spring.
@pytest.mark.parametrize("language", ["python", pytest.param("java", marks=pytest.mark.nightly)])
def test_receivers_of_webhooks_have_the_lists_of_the_api_after_kills_of_all_parts(
    language: str, receiving: Receiving, right: Right, eventually: Callable[..., Any]
) -> None:
    receiver = receiving.receivers[language]
    eventually(lambda: receiver.seen() == right.notification_ids, what="it has exactly the notifications")
    assert receiver.lists() == right.lists
    assert receiver.stop() == [RECEIVERS[language]], receiver.log()


def test_an_inbox_in_memory_is_that_of_the_api(bridge: Connection, right: Right) -> None:
    assert lists_of_an_inbox(bridge) == right.lists


def test_every_page_for_a_language_is_typed() -> None:
    pages = {each.stem for each in PAGES.glob("*.md") if "examples/" in each.read_text("utf-8")}
    assert pages - {"index", "data-platform", "webhooks"} == {*LANGUAGES}
