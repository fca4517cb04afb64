"""The embedded stack with the real Kafka and registry: loopback only, and nothing is lost by a kill or a stop."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from support import http_clients
from support.edge.process import wait_until
from support.kafka.stack import artifacts
from taskbridge.local.artifacts import cache_folder
from taskbridge.local.host import free_ports
from taskbridge.local.jvm import (
    kafka_answers,
)
from taskbridge.local.stack import JvmStack
from taskbridge.local.supervisor import Phase, ServiceEvent, Supervisor
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future

    from taskbridge.local.jvm import Endpoints

pytestmark = pytest.mark.integration

RECORD = os.urandom(4 * 1024 * 1024 - 1024)  # does not compress, so all of it is sent
SCHEMA = json.dumps({"type": "record", "name": "Kept", "fields": []})


class Local:
    """A JVM stack of this module's own, which it may kill."""

    def __init__(self, data_dir: Path) -> None:
        self.events: list[ServiceEvent] = []
        self.supervisor = Supervisor(on_event=self.events.append)
        self.data_dir = data_dir
        self.kafka_port, self.registry_port = free_ports(2)
        self.endpoints: Endpoints
        self._stack = self.make_stack(Supervisor(on_event=self.events.append))

    def make_stack(self, supervisor: Supervisor) -> JvmStack:
        return JvmStack(
            data_dir=self.data_dir,
            kafka_port=self.kafka_port,
            registry_port=self.registry_port,
            cache=cache_folder(os.environ),
            supervisor=supervisor,
            progress=print,
        )

    def start(self) -> None:
        self._stack = self.make_stack(self.supervisor)
        self.endpoints = self._stack.start()

    def stop(self) -> None:
        self._stack.stop()

    def pid(self, name: str) -> int:
        pid = self.supervisor.pid(name)
        assert pid is not None
        return pid

    def kill(self, name: str) -> None:
        """Kill a service and wait until it is ready again."""
        seen = len(self.events)
        os.kill(self.pid(name), signal.SIGKILL)
        wait_until(lambda: Phase.READY in [event.phase for event in self.events[seen:]])
        phases = [event.phase for event in self.events[seen:] if event.phase is not Phase.WAITING]
        assert phases == [Phase.DIED, Phase.RESTARTING, Phase.STARTING, Phase.READY]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Generator[Local]:
    # Not ASCII: Java reads its files and arguments in other encodings than we write.
    made = Local(tmp_path_factory.mktemp("stack") / "数据 ;=")
    artifacts()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def topic(local: Local) -> str:
    """A new topic for records of 4 MiB, with one such record."""
    name = f"kept-{uuid.uuid4()}"
    servers = local.endpoints.bootstrap_servers
    limits = {"max.message.bytes": str(4 * 1024 * 1024)}
    admin = AdminClient({"bootstrap.servers": servers})
    created = cast("dict[str, Future[None]]", admin.create_topics([NewTopic(name, 1, 1, config=limits)]))
    created[name].result(30)
    producer = Producer({"bootstrap.servers": servers, "message.max.bytes": 4 * 1024 * 1024, "acks": "all"})
    producer.produce(name, RECORD)
    assert producer.flush(30) == 0
    return name


def read_one(local: Local, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": local.endpoints.bootstrap_servers, "group.id": str(uuid.uuid4())})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        for _ in range(30):
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                return message.value()
        return None
    finally:
        consumer.close()


@pytest.fixture
def subject(local: Local) -> str:
    """A new subject with one schema."""
    name = f"kept-{uuid.uuid4()}"
    answer = http_clients.post(f"{local.endpoints.registry_url}/subjects/{name}/versions", json={"schema": SCHEMA})
    assert answer.status_code == 200
    return name


def read_schema(local: Local, subject: str) -> object:
    answer = http_clients.get(f"{local.endpoints.registry_url}/subjects/{subject}/versions/1").json()
    return json.loads(answer["schema"])


def listening_addresses(pid: int) -> set[str]:
    """The local addresses of every TCP listener and UDP socket of a process, in hex as /proc has them."""
    inodes = set[str]()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    addresses = set[str]()
    for table, state in itertools.product(("tcp", "tcp6", "udp", "udp6"), ("0A", "07")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and fields[9] in inodes:
                addresses.add(fields[1])
    return addresses


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "count"), [("kafka", 2), ("registry", 2)])
def test_nothing_listens_beyond_loopback(name: str, count: int, local: Local) -> None:
    addresses = listening_addresses(local.pid(name))

    assert len(addresses) == count
    assert {address.split(":")[0] for address in addresses} == {"0100007F"}


def test_a_killed_registry_comes_back_with_its_schemas(local: Local, subject: str) -> None:
    # At once after the answer: H2 would by default write half a second later.
    local.kill("registry")

    assert read_schema(local, subject) == json.loads(SCHEMA)


def test_a_second_start_on_the_same_folder_finds_records_and_schemas(local: Local, topic: str, subject: str) -> None:
    local.stop()
    assert not kafka_answers(local.endpoints.bootstrap_servers, timeout_s=0.5)
    local.kafka_port, local.registry_port = free_ports(2)  # other ports are no other data
    local.start()

    assert read_one(local, topic) == RECORD
    assert read_schema(local, subject) == json.loads(SCHEMA)


def test_topics_are_not_made_by_a_misspelt_name(local: Local) -> None:
    producer = Producer({"bootstrap.servers": local.endpoints.bootstrap_servers, "message.timeout.ms": 3000})
    delivered: list[bool] = []
    producer.produce("misspelt", b"", on_delivery=lambda error, _: delivered.append(error is None))
    producer.flush(10)

    assert delivered == [False]
    admin = AdminClient({"bootstrap.servers": local.endpoints.bootstrap_servers})
    assert "misspelt" not in admin.list_topics(timeout=60).topics


def test_a_second_stack_on_the_same_ports_or_folder_is_one_readable_line(local: Local) -> None:
    second = local.make_stack(Supervisor(on_event=print))
    with pytest.raises(ConfigurationError, match=rf"^port {local.kafka_port} cannot be used .* --kafka-port$"):
        second.start()

    kafka_port, registry_port = free_ports(2)
    elsewhere = JvmStack(
        data_dir=local.data_dir,
        kafka_port=kafka_port,
        registry_port=registry_port,
        cache=cache_folder(os.environ),
        supervisor=Supervisor(on_event=print),
        progress=print,
    )
    with pytest.raises(
        ConfigurationError, match=r"^another process uses --data-dir=.* Give each process its own folder$"
    ):
        elsewhere.start()
    elsewhere.stop()
    assert kafka_answers(local.endpoints.bootstrap_servers)
