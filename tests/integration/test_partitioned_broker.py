"""A broker that the network loses to the other brokers only: nothing is refused, nothing is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from support.background import Steadily
from support.edge.process import RunningEdge, wait_until
from support.kafka.brokers import APART, BROKERS, SplitCluster
from support.streams.lives import assert_all_is_right, caught_up, read_topic
from support.streams.processes import Worker
from taskbridge.cli.connection import Connection
from taskbridge.runtime.kafka import admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

ENOUGH = 2 * DEFAULT_PARTITIONS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[SplitCluster]:
    with SplitCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def outside(cluster: SplitCluster, stack: Endpoints) -> Generator[Connection]:
    connection = Connection(cluster.servers, stack.registry_url, {})
    apply_topics(connection.admin(), topics.ALL, partitions=DEFAULT_PARTITIONS)
    connection.registry.register(topics.ALL)
    yield connection
    connection.close()


def test_a_broker_behind_a_broken_network_costs_no_callback_and_changes_no_state(
    cluster: SplitCluster, outside: Connection, tmp_path: Path
) -> None:
    edge = RunningEdge(tmp_path, bootstrap_servers=cluster.servers, registry_url=outside.registry_url)
    worker = Worker(tmp_path, outside)
    try:
        edge.start()
        worker.start()
        wait_until(edge.is_whole, what="the edge reaches Kafka")
        wait_until(worker.is_ready, what="the worker is ready")
        with Steadily(edge) as sent:
            wait_until(lambda: sent.in_a_row["kafka"] >= ENOUGH, what="all goes to Kafka")
            cluster.cut_off_from_brokers()
            wait_until(lambda: in_sync(cluster) == set(BROKERS) - {APART}, what="the broker is missed")
            wait_until(lambda: sent.in_a_row["kafka"] >= ENOUGH, 120, what="all goes to Kafka without it")
            cluster.join()
            wait_until(lambda: in_sync(cluster) == set(BROKERS), what="all are in sync again")
        assert set(sent.statuses) == {200}
        wait_until(edge.has_drained, what="the spool is empty")
        stored = {(message.key() or b"").decode() for message in read_topic(outside, TASK_EVENTS.name)}
        assert sent.instances <= stored
        wait_until(lambda: runs(worker) and caught_up(outside), 120, what="all events are folded")
        wait_until(worker.is_ready, what="the worker is ready again")
        assert_all_is_right(outside, lambda topic: read_topic(outside, topic))
        assert worker.end(signal.SIGTERM) == 0
    finally:
        edge.kill_if_running()
        worker.kill_if_running()
        worker.show_log()


def runs(worker: Worker) -> bool:
    """Where the lost broker coordinated the group, its successor lets go of the worker: that ends, and starts again."""
    assert worker.process is not None
    if worker.process.poll() is not None:
        assert worker.log_path.read_text().rstrip().endswith("Unknown member")
        worker.start()
    return True


def in_sync(cluster: SplitCluster) -> set[int]:
    """The brokers that have all of the events, as the first knows it: it is the controller."""
    found: Any = admin_client(cluster.servers.split(",")[0]).list_topics(TASK_EVENTS.name, timeout=10)
    partitions = found.topics[TASK_EVENTS.name].partitions.values()
    return {broker for broker in BROKERS if all(broker in each.isrs for each in partitions)}
