"""The drill: a bridge is backed up as docs/how-to/back-up-and-restore.md says, lost and restored; no more is lost."""

from __future__ import annotations

import io
import json
import shutil
import signal
from collections import defaultdict
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from support import http_clients
from support.center_process import CenterProcess, Line, lists_of
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN
from support.edge.process import OwnStack, RunningEdge, wait_until
from support.forked import taskbridge
from support.kafka.stack import artifacts
from support.streams.lives import (
    assert_all_is_right,
    caught_up,
    delete_all_topics,
    expected,
    read_topic,
    states_on_topic,
)
from support.streams.processes import Rebuild, Worker, ends_of, pending_notifications
from taskbridge.cli.connection import Connection
from taskbridge.cli.schemas import versions_folder
from taskbridge.local.host import free_ports
from taskbridge.local.jvm import API_PATH, registry_service, registry_url
from taskbridge.local.supervisor import Supervisor
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.codec import framed, task_event_codec, task_notification_codec
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.registry import Registry, SchemaRef
from taskbridge.schemas.topics import FORMS, PEOPLE, TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.schemas.views import views

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.local.supervisor import ServiceSpec
    from taskbridge.streams.fold.instance import Instance

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(300)]

PARTITIONS = 3
SETTINGS = {"TASKBRIDGE_PARTITIONS": str(PARTITIONS)}
ADMIN_PATH = "/apis/registry/v3/admin"
PUBLISHED = (TASK_EVENTS, TASK_NOTIFICATIONS)


class Company:
    """A whole bridge that has been upgraded before: its registry knows schemas that no program of today registers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._backup = folder / "backup"
        self.stack = OwnStack(folder / "stack")
        self.servers, self.registry_url = self.stack.endpoints.bootstrap_servers, self.stack.endpoints.registry_url
        self.connection = Connection(self.servers, self.registry_url, {})
        apply_topics(self.connection.admin(), topics.ALL, partitions=PARTITIONS)
        self.old_value = self._write_as_long_ago()
        self.edge = RunningEdge(folder, bootstrap_servers=self.servers, registry_url=self.registry_url, **SETTINGS)
        self.edge.start()
        self.worker = self.new_worker()
        self.center = CenterProcess(folder, self.connection)
        self.center.start()
        self.seed = 0
        self.admin_url = f"{self.registry_url.removesuffix(API_PATH)}{ADMIN_PATH}"

    def _write_as_long_ago(self) -> bytes:
        """An event by the first schema that there ever was."""
        path = versions_folder() / "TaskEvent.1.avsc"
        text = path.read_text("utf-8")
        schema_id = self.connection.registry.client.register(TASK_EVENTS.subject, text)
        with path.with_suffix(".avro").open("rb") as written:
            event: Any = next(iter(fastavro.reader(written)))
        body = io.BytesIO()
        fastavro.schemaless_writer(body, fastavro.parse_schema(json.loads(text)), event)
        config: dict[str, Any] = producer_config(self.servers)
        producer = Producer(config)
        value = framed(schema_id, body.getvalue())
        producer.produce(TASK_EVENTS.name, key=event["instance_id"].encode(), value=value)
        assert producer.flush(30) == 0
        self._old_event = event["event_id"]
        return value

    def old_is_read(self, registry: Registry) -> bool:
        """Whether a reader with this registry can read old records."""
        try:
            return task_event_codec(registry).decode(self.old_value).event_id == self._old_event
        except RecordError:
            return False

    def new_worker(self) -> Worker:
        """On a disk of its own, which is empty."""
        worker = Worker(self.folder, self.connection, **SETTINGS)
        worker.start()
        return worker

    def post(self, count: int) -> None:
        """So many callbacks of a company at work, each answered 200."""
        self.seed += 1
        given = ["simulate", "--json", "--url", self.edge.url, "--rate", "500", "--token", SYSTEM_TOKEN]
        given += ["--count", f"{count}", "--seed", f"{self.seed}", "--app", APP_TYPE, "--corp", CORP_ID]
        done = taskbridge(*given)
        assert done.returncode == 0, done.stderr

    def settles(self) -> None:
        """All accepted callbacks are delivered, folded and published."""
        wait_until(self.edge.is_whole, what="the edge is whole")
        wait_until(self.edge.has_drained, what="the spool is empty")
        wait_until(self.worker.is_ready, what="the worker is ready")
        wait_until(partial(caught_up, self.connection, TASK_EVENTS.name), what="all events are folded")
        wait_until(lambda: not pending_notifications(self.connection), what="nothing is pending")

    def read(self, topic: str) -> list[Message]:
        return read_topic(self.connection, topic)

    def events(self) -> set[str]:
        codec = task_event_codec(self.connection.registry)
        return {codec.decode(each.value()).event_id for each in self.read(TASK_EVENTS.name)}

    def back_up(self) -> None:
        """Workers end, Kafka and the registry are stopped and copied; the edge goes on accepting."""
        assert self.worker.end(signal.SIGTERM) == 0
        self.stack.stop()
        shutil.rmtree(self._backup, ignore_errors=True)
        shutil.copytree(self.folder / "stack", self._backup)
        self.post(10)
        self.stack.start()
        self.worker.start()

    def lose_all(self) -> None:
        """Kafka's volumes and the registry's; a worker that has not ended yet is killed."""
        self.worker.kill()
        self.worker.process = None
        self.stack.stop()
        shutil.rmtree(self.folder / "stack")

    def restore(self) -> None:
        """Also of the task center: positions in its database may be ahead of an older Kafka."""
        shutil.copytree(self._backup, self.folder / "stack")
        self.stack.start()
        assert self.center.stop() == 0
        rebuilt = taskbridge("center", "--rebuild", environment=self.center.environment)
        assert rebuilt.returncode == 0, rebuilt.stderr
        self.center.start()

    def move_the_spool(self) -> None:
        """The disk of an edge's dead machine is brought to another one, and an edge started on it."""
        there = self.folder / "another-machine"
        shutil.move(self.edge.data_dir, there)
        self.edge.environment["EDGE_DATA_DIR"] = str(there)
        self.edge.start()

    def rebuild(self, command: str = "--rebuild") -> None:
        found = Rebuild(self.connection, self.folder)
        try:
            found.run(command)
        finally:
            found.kill_if_running()

    def has(self, right: Mapping[str, Instance]) -> None:
        """States, notifications and lists are those of these instances."""
        assert_all_is_right(self.connection, self.read, instances=right, counted=False)
        self._lists_are_right()

    def is_right(self) -> None:
        """States, notifications and lists are those of the plain fold of the events."""
        assert_all_is_right(self.connection, self.read)
        self._lists_are_right()

    def _lists_are_right(self) -> None:
        lists: dict[tuple[str, str], set[Line]] = defaultdict(set)
        for instance_id, state in states_on_topic(self.connection, self.read).items():
            for key in views(state):
                lists[state.corp_id, key.user_id].add(Line(key.view.lower(), instance_id, key.task_id))

        def are_shown() -> bool:
            return all({*(lists_of(self.center.url, *person) or {})} == lines for person, lines in lists.items())

        assert lists
        wait_until(self.center.is_ready, what="the task center is ready")
        wait_until(are_shown, what="its lists are those of the states")

    def examined(self) -> list[dict[str, str]]:
        """The doctor's findings, with the services' own settings."""
        environment = {
            **self.edge.environment,
            "STREAMS_KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "STREAMS_SCHEMA_REGISTRY_URL": self.registry_url,
            "STREAMS_DATA_DIR": str(self.worker.data_dir),
            "STREAMS_PORT": str(self.worker.port),
        }
        given = ["--edge-url", self.edge.url, "--streams-url", f"http://127.0.0.1:{self.worker.port}"]
        given += ["--center-url", self.center.url, "--end-to-end", "--credentials", str(self.edge.credentials)]
        done = taskbridge("doctor", "--json", *given, environment=environment)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) > 10, done.stderr
        return [each for each in found if each["state"] == "failed"]

    def end(self) -> None:
        self.center.kill()
        self.worker.kill()
        self.edge.kill_if_running()
        self.connection.close()
        self.stack.stop()


class Portal:
    """A consumer that stores its positions in Kafka."""

    def __init__(self, company: Company) -> None:
        self._config: dict[str, Any] = {**consumer_config(company.servers, "portal"), "auto.offset.reset": "earliest"}
        self._codec = task_notification_codec(company.connection.registry)
        self._partitions = [TopicPartition(TASK_NOTIFICATIONS.name, each) for each in range(PARTITIONS)]

    def positions(self) -> list[int]:
        consumer = Consumer(self._config)
        try:
            return [each.offset for each in consumer.committed(self._partitions, timeout=30)]
        finally:
            consumer.close()

    def read_on(self, company: Company) -> list[str]:
        """Read the events of the notifications from its positions to the end, and commit."""
        to = ends_of(company.connection, TASK_NOTIFICATIONS.name)
        consumer = Consumer(self._config)
        try:
            begun = consumer.committed(self._partitions, timeout=30)
            consumer.assign([TopicPartition(each.topic, each.partition, max(0, each.offset)) for each in begun])
            found: list[str] = []
            while any(at.offset < to[at.partition] for at in consumer.position(self._partitions)):
                read = [each for each in consumer.consume(1000, 0.2) if each.error() is None]
                found += [self._codec.decode(each.value()).event_id for each in read]
            consumer.commit(asynchronous=False)
            return found
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def company(disk_folder: Callable[[], Path]) -> Generator[Company]:
    made = Company(disk_folder())
    yield made
    made.worker.show_log()
    made.center.show_log()
    made.end()


def test_what_was_accepted_outlives_kafka_registry_and_workers(company: Company) -> None:
    portal = Portal(company)
    company.settles()
    company.post(60)
    company.settles()
    portal.read_on(company)
    backed_up, records = company.events(), len(company.read(TASK_EVENTS.name))

    company.back_up()
    company.post(20)
    company.settles()
    committed, ahead = portal.positions(), {*portal.read_on(company)}
    beyond = portal.positions()
    until_disaster = company.events()
    assert len(until_disaster - backed_up) > 20, "also those during Kafka's stop"

    # Kafka is stopped; the edge accepts into its spool, until its machine dies too. Only that disk is left.
    company.stack.signal("kafka", signal.SIGSTOP)
    company.post(40)
    waiting = company.edge.metric("taskbridge_edge_spool_depth") or 0
    company.edge.kill()
    company.lose_all()
    shutil.rmtree(company.worker.data_dir)

    company.restore()
    assert portal.positions() == committed
    company.worker = company.new_worker()
    company.move_the_spool()
    company.settles()

    # What was copied is there, and what waited; what came between the copy and the disaster is lost, and no more.
    found = company.events()
    assert backed_up <= found
    assert len(company.read(TASK_EVENTS.name)) >= records + waiting, "some came twice, and no more often than that"
    assert len(found - backed_up) > 20
    assert not found & (until_disaster - backed_up)
    company.is_right()
    assert company.old_is_read(company.connection.registry)
    # A consumer with positions in Kafka continues. Positions stored elsewhere would be ahead, and skip new records.
    assert any(at > then for at, then in zip(beyond, committed, strict=True))
    assert ahead
    assert found - backed_up <= {*portal.read_on(company)}
    assert company.examined() == []


def test_an_empty_registry_gives_other_ids_and_one_with_the_export_the_same(company: Company, tmp_path: Path) -> None:
    exported = http_clients.get(f"{company.admin_url}/export").raise_for_status().content
    with two_registries(tmp_path) as (empty, restored):
        with registered(empty) as found:
            assert not company.old_is_read(found), "the record's number means another schema there"
        http_clients.post(
            f"{restored.removesuffix(API_PATH)}{ADMIN_PATH}/import",
            content=exported,
            headers={"Content-Type": "application/zip"},
        ).raise_for_status()
        with registered(restored) as found:
            assert company.old_is_read(found)
            for schema in map(SchemaRef.of, PUBLISHED):
                assert found.known_id(schema) == company.connection.registry.id_of(schema)


@pytest.mark.nightly
def test_a_mirror_has_all_that_it_copied_and_only_the_newer_half_of_the_events(company: Company) -> None:
    right = expected(company.connection, company.read)
    assert company.worker.end(signal.SIGTERM) == 0
    mirrored = {topic.name: company.read(topic.name) for topic in (TASK_EVENTS, TASK_STATES, PEOPLE, FORMS)}
    events = mirrored[TASK_EVENTS.name]
    mirrored[TASK_EVENTS.name] = [each for each in events if (each.offset() or 0) > len(events) // (2 * PARTITIONS)]
    delete_all_topics(company.connection)
    apply_topics(company.connection.admin(), topics.ALL, partitions=PARTITIONS)
    for records in mirrored.values():
        copy(company, records)
    company.rebuild()
    company.rebuild("--republish")
    company.worker = company.new_worker()
    company.settles()
    company.has(right)
    company.post(10)
    company.settles()
    # Of the older ones the topic has only the newer half.
    company.has(expected(company.connection, company.read) | right)


def copy(company: Company, records: list[Message]) -> None:
    """Byte by byte, as MirrorMaker does it; positions in the topic become others."""
    config: dict[str, Any] = producer_config(company.servers)
    producer = Producer(config)
    for each in records:
        producer.produce(
            each.topic() or "",
            key=each.key(),
            value=each.value(),
            headers=cast("Any", each.headers()),
            partition=each.partition() or 0,
            timestamp=each.timestamp()[1],
        )
    assert producer.flush(30) == 0


@contextmanager
def registered(url: str) -> Generator[Registry]:
    """A registry in which a service has registered its schemas."""
    with closing(Registry(url)) as registry:
        registry.register(topics.ALL)
        yield registry


@contextmanager
def two_registries(folder: Path) -> Generator[tuple[str, str]]:
    """Both new and empty."""
    specs: list[ServiceSpec] = []
    ports = free_ports(4)
    for at in (0, 1):
        spec = registry_service(
            home=artifacts().registry_home, data_dir=folder / f"{at}", port=ports[at], management_port=ports[at + 2]
        )
        specs.append(replace(spec, name=f"registry-{at}"))
    with Supervisor(on_event=print) as supervisor:
        supervisor.start(*specs)
        yield registry_url("127.0.0.1", ports[0]), registry_url("127.0.0.1", ports[1])
