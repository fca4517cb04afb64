"""Reading topics back as any consumer would, and running the services as real processes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from support.center import databases
from support.edge.process import wait_until
from support.kafka.brokers import OwnBroker
from support.streams.lives import delete_all_topics, read_topic, remove_workers
from support.streams.processes import Worker
from taskbridge.cli.connection import Connection
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.local.jvm import Endpoints

__all__ = ["databases"]


def eventually(condition: Callable[[], Any], *, within_s: float = 120, what: str) -> Any:
    return wait_until(condition, within_s, what=what)


@pytest.fixture(params=["postgresql", pytest.param("sqlite", marks=pytest.mark.nightly)])
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def registered(stack: Endpoints) -> Generator[Connection]:
    """The shared Kafka and registry, with the contract's schemas: to register them costs 0.12 s of CPU time."""
    found = Connection(stack.bootstrap_servers, stack.registry_url, {})
    found.registry.register(topics.ALL)
    yield found
    found.close()


@pytest.fixture
def connection(registered: Connection) -> Connection:
    """The same with the contract's topics, and without the workers of the test before."""
    remove_workers(registered)
    apply_topics(registered.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    return registered


@pytest.fixture(scope="session")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[OwnBroker]:
    """A second Kafka, for tests that remove what others depend on."""
    broker = OwnBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def own_kafka(stack: Endpoints, own_broker: OwnBroker) -> Generator[Connection]:
    """Its connection. The registry is shared."""
    found = Connection(own_broker.servers, stack.registry_url, {})
    found.registry.register(topics.ALL)
    yield found
    found.close()


@pytest.fixture
def workers(connection: Connection, tmp_path: Path) -> Generator[tuple[Worker, Worker]]:
    """Two workers on the test's ``connection``, not started yet."""
    pair = (Worker(tmp_path, connection), Worker(tmp_path, connection))
    yield pair
    for worker in pair:
        worker.kill()
        worker.show_log()


@pytest.fixture(scope="module")
def as_if_nothing_ran(stack: Endpoints) -> None:
    """For modules that compare whole topics: other modules write poison there."""
    found = Connection(stack.bootstrap_servers, stack.registry_url, {})
    delete_all_topics(found)
    found.close()


@pytest.fixture
def streams_service(connection: Connection, tmp_path: Path) -> Generator[Worker]:
    with Worker(tmp_path, connection) as worker:
        yield worker


@pytest.fixture(name="read_topic")
def read_topic_fixture(connection: Connection) -> Callable[[str], list[Message]]:
    """Every record of a topic, from its beginning to its present end; each partition in order."""

    return partial(read_topic, connection)


@pytest.fixture(name="eventually", scope="session")
def eventually_fixture() -> Callable[..., Any]:
    return eventually
