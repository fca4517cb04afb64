"""Reading topics back as any consumer would, and running the services as real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from support import http_clients
from support.center import databases, dialect
from support.forked import Forked
from support.kafka.brokers import OwnBroker
from support.streams.lives import delete_all_topics, read_topic, remove_workers
from support.streams.processes import Worker
from taskbridge.cli.connection import Connection
from taskbridge.local.host import free_port
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.local.jvm import Endpoints

__all__ = ["databases", "dialect"]


def eventually(condition: Callable[[], Any], *, within_s: float = 120, what: str) -> Any:
    """Return the first true value of ``condition``; fail when there is none in time."""
    deadline = time.monotonic() + within_s
    while (began := time.monotonic()) < deadline:
        if found := condition():
            return found
        # A slow condition, such as one on all records of a topic, leaves the cores to the services.
        time.sleep(max(0.1, 2 * (time.monotonic() - began)))
    pytest.fail(f"did not happen within {within_s} s: {what}")


@dataclass
class Service:
    """One of our services as a process of its own, ended with the test."""

    module: str
    environment: Mapping[str, str]
    log_path: Path
    port: int = field(default_factory=free_port)
    process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = Forked(
            f"from {self.module} import main; main()", environment=self.environment, log=self.log_path
        )

    def status(self, path: str) -> int | None:
        with contextlib.suppress(httpx2.HTTPError):
            return http_clients.get(f"{self.url}{path}", timeout=2).status_code
        return None

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.module} died: {self.log_path.read_text()[-2000:]}"
            return self.status("/readyz") == 200

        eventually(ready, what=f"{self.module} is ready")

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, signum: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        code = self.process.wait(60)
        self.process = None
        return code


@pytest.fixture
def connection(stack: Endpoints) -> Generator[Connection]:
    """The shared Kafka and registry, with the contract's topics and schemas."""
    found = Connection(stack.bootstrap_servers, stack.registry_url, {})
    remove_workers(found)
    apply_topics(found.admin(), topics.ALL, partitions=topics.DEFAULT_PARTITIONS)
    found.registry.register(topics.ALL)
    yield found
    found.close()


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
        worker.kill_if_running()
        worker.show_log()


@pytest.fixture(scope="module")
def as_if_nothing_ran(stack: Endpoints) -> None:
    """For modules that compare whole topics: other modules write poison there."""
    found = Connection(stack.bootstrap_servers, stack.registry_url, {})
    delete_all_topics(found)
    found.close()


@pytest.fixture
def streams_service(connection: Connection, tmp_path: Path) -> Generator[Service]:
    service = Service("taskbridge.streams.app", {}, tmp_path / "streams.log")
    service.environment = {
        **os.environ,
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": connection.bootstrap_servers,
        "STREAMS_SCHEMA_REGISTRY_URL": connection.registry_url,
        "STREAMS_DATA_DIR": str(tmp_path / "streams"),
        "STREAMS_PORT": str(service.port),
    }
    yield service
    if service.process is not None:
        service.kill()


@pytest.fixture(name="read_topic")
def read_topic_fixture(connection: Connection) -> Callable[[str], list[Message]]:
    """Every record of a topic, from its beginning to its present end; each partition in order."""

    return partial(read_topic, connection)


@pytest.fixture(name="eventually", scope="session")
def eventually_fixture() -> Callable[..., Any]:
    return eventually
