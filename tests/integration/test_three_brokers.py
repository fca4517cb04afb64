"""Three replicas, two in sync, on three brokers: topics, reports, and brokers that die or that the network loses."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from support.background import Steadily
from support.edge.process import RunningEdge, wait_until
from support.forked import taskbridge
from support.kafka.brokers import APART, BROKERS, SplitCluster
from support.streams.lives import assert_all_is_right, caught_up, read_topic
from support.streams.processes import Worker
from taskbridge.cli.connection import Connection
from taskbridge.runtime.kafka import admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import ALL, CALLBACKS_QUARANTINE, DEFAULT_PARTITIONS, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

IN_SYNC = "min.insync.replicas"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[SplitCluster]:
    with SplitCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def outside(cluster: SplitCluster, stack: Endpoints) -> Generator[Connection]:
    connection = Connection(cluster.servers, stack.registry_url, {})
    yield connection
    connection.close()


@pytest.fixture
def edge(outside: Connection, tmp_path: Path) -> Generator[RunningEdge]:
    with RunningEdge(tmp_path, bootstrap_servers=outside.bootstrap_servers, registry_url=outside.registry_url) as edge:
        yield edge


def test_topics_have_three_replicas_with_two_in_sync_and_less_is_reported(
    outside: Connection, edge: RunningEdge
) -> None:
    assert topics_apply(outside) == (0, {topic.name: ("created", []) for topic in ALL})
    # Here and below: retried while a broker does not know yet what the controller did.
    all_ok: dict[str, tuple[str, list[str]]] = {topic.name: ("ok", []) for topic in ALL}
    wait_until(lambda: found(outside) == all_ok, what="all are there")
    for topic in ALL:
        wait_until(lambda name=topic.name: replicas_of(outside, name) == {len(BROKERS)}, what="three copies of each")

    set_in_sync(outside, TASK_EVENTS.name, "1")
    recreate(outside, CALLBACKS_QUARANTINE.name, replication=1, settings=CALLBACKS_QUARANTINE.settings)
    in_sync = f"{IN_SYNC} is 1, the contract says 2 with 3 replicas"
    few = "1 of 3 brokers have it, the contract says 3 (--replication)"
    right = all_ok | {TASK_EVENTS.name: ("differs", [in_sync]), CALLBACKS_QUARANTINE.name: ("differs", [few])}
    wait_until(lambda: topics_apply(outside) == (1, right), what="only the differences are reported")
    edge.start()
    drift = f"{TASK_EVENTS.name}: {in_sync}; {CALLBACKS_QUARANTINE.name}: {few}"
    wait_until(lambda: readiness(edge).get("topics") == drift, what="the edge reports it")
    assert readiness(edge)["ready"]
    assert readiness(edge)["degraded"]

    # A topic of another creator has the broker's defaults: three replicas, and one in sync.
    recreate(outside, CALLBACKS_QUARANTINE.name, replication=-1, settings=CALLBACKS_QUARANTINE.settings)
    differs = ("differs", [in_sync])
    wait_until(lambda: found(outside)[CALLBACKS_QUARANTINE.name] == differs, what="the broker's defaults are reported")
    for topic in (TASK_EVENTS, CALLBACKS_QUARANTINE):
        set_in_sync(outside, topic.name, "2")
    wait_until(lambda: found(outside) == all_ok, what="nothing differs any more")


def test_one_broker_away_is_not_noticed_and_two_are_what_the_spool_is_for(
    cluster: SplitCluster, outside: Connection, edge: RunningEdge
) -> None:
    found(outside)
    edge.start()
    wait_until(edge.is_whole, what="the edge reaches Kafka")
    with Steadily(edge) as sent:
        wait_until(lambda: sent.in_a_row["kafka"] >= 2 * DEFAULT_PARTITIONS, what="all goes to Kafka")
        cluster.kill(3)
        # The partitions that it led are led by another as soon as it is missed.
        wait_until(lambda: in_sync_of(outside, TASK_EVENTS.name) == {1, 2}, what="broker 3 is missed")
        wait_until(lambda: sent.in_a_row["kafka"] >= 2 * DEFAULT_PARTITIONS, what="all goes to Kafka without it")
        cluster.kill(2)
        wait_until(lambda: in_sync_of(outside, TASK_EVENTS.name) == {1}, what="broker 2 is missed")
        wait_until(lambda: sent.in_a_row["spool"] >= 2 * DEFAULT_PARTITIONS, what="all goes to the spool")
        cluster.start(2, 3)
        wait_until(lambda: sent.in_a_row["kafka"] >= 2 * DEFAULT_PARTITIONS, what="all goes to Kafka again")
    wait_until(edge.has_drained, what="the spool is empty")
    wait_until(lambda: in_sync_of(outside, TASK_EVENTS.name) == set(BROKERS), what="all are in sync again")
    assert set(sent.statuses) == {200}
    stored = {(message.key() or b"").decode() for message in read_topic(outside, TASK_EVENTS.name)}
    assert sent.instances <= stored


def test_a_broker_behind_a_broken_network_costs_no_callback_and_changes_no_state(
    cluster: SplitCluster, outside: Connection, edge: RunningEdge, tmp_path: Path
) -> None:
    found(outside)
    outside.registry.register(ALL)
    with Worker(tmp_path, outside) as worker:
        edge.start()
        worker.start()
        wait_until(edge.is_whole, what="the edge reaches Kafka")
        with Steadily(edge) as sent:
            wait_until(lambda: sent.in_a_row["kafka"] >= 2 * DEFAULT_PARTITIONS, what="all goes to Kafka")
            for cut in (cluster.cut_off, cluster.cut_off_from_brokers):
                wait_until(lambda: runs(worker) and worker.is_ready(), 120, what="the worker is ready")
                cut()
                wait_until(lambda: in_sync_of_all(cluster) == {*BROKERS} - {APART}, what="the broker is missed")
                wait_until(
                    lambda: sent.in_a_row["kafka"] >= 2 * DEFAULT_PARTITIONS, 120, what="all goes to Kafka without it"
                )
                cluster.join()
                wait_until(lambda: in_sync_of_all(cluster) == set(BROKERS), what="all are in sync again")
        assert set(sent.statuses) == {200}
        wait_until(edge.has_drained, what="the spool is empty")
        stored = {(message.key() or b"").decode() for message in read_topic(outside, TASK_EVENTS.name)}
        assert sent.instances <= stored
        wait_until(lambda: runs(worker) and caught_up(outside), 120, what="all events are folded")
        wait_until(worker.is_ready, what="the worker is ready again")
        assert_all_is_right(outside, lambda topic: read_topic(outside, topic))
        assert worker.end(signal.SIGTERM) == 0


def runs(worker: Worker) -> bool:
    """Where the lost broker coordinated the group, its successor lets go of the worker: that ends, and starts again."""
    assert worker.process is not None
    if worker.process.poll() is not None:
        assert worker.log_path.read_text().rstrip().endswith("Unknown member")
        worker.start()
    return True


def in_sync_of_all(cluster: SplitCluster) -> set[int]:
    """The brokers that have all of the events, as the first knows it: it is the controller."""
    found: Any = admin_client(cluster.servers.split(",")[0]).list_topics(TASK_EVENTS.name, timeout=60)
    partitions = found.topics[TASK_EVENTS.name].partitions.values()
    return {broker for broker in BROKERS if all(broker in each.isrs for each in partitions)}


def topics_apply(outside: Connection) -> tuple[int, dict[str, tuple[str, list[str]]]]:
    """The command's exit code, and its result for each topic."""
    environment = {
        **os.environ,
        "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": outside.bootstrap_servers,
        "TASKBRIDGE_SCHEMA_REGISTRY_URL": outside.registry_url,
    }
    done = taskbridge("topics", "apply", "--json", environment=environment, timeout=60)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return done.returncode, {each["topic"]: (each["state"], each["drift"]) for each in lines}


def found(outside: Connection) -> dict[str, tuple[str, list[str]]]:
    """What the command would say."""
    reports = apply_topics(outside.admin(), ALL, partitions=DEFAULT_PARTITIONS)
    return {each.name: (each.state, each.drift) for each in reports}


def readiness(edge: RunningEdge) -> dict[str, Any]:
    answer = edge.get("/readyz")
    return {} if answer is None else answer.json()


def partitions_of(outside: Connection, topic: str) -> list[Any]:
    found: Any = outside.admin().list_topics(topic, timeout=60)
    return list(found.topics[topic].partitions.values())


def replicas_of(outside: Connection, topic: str) -> set[int]:
    return {len(each.replicas) for each in partitions_of(outside, topic)}


def in_sync_of(outside: Connection, topic: str) -> set[int]:
    return {broker for each in partitions_of(outside, topic) for broker in each.isrs}


def set_in_sync(outside: Connection, topic: str, value: str) -> None:
    entry = ConfigEntry(IN_SYNC, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = outside.admin()  # a name, or it would be gone before its answers come
    for done in cast("dict[Any, Any]", admin.incremental_alter_configs([resource])).values():
        done.result(30)


def recreate(outside: Connection, topic: str, *, replication: int, settings: Mapping[str, str]) -> None:
    admin = outside.admin()
    for done in cast("dict[str, Any]", admin.delete_topics([topic], operation_timeout=30)).values():
        done.result(30)

    def is_made() -> bool:
        new = NewTopic(topic, DEFAULT_PARTITIONS, replication, config=dict(settings))
        made = cast("dict[str, Any]", admin.create_topics([new], operation_timeout=30))[topic]
        return made.exception(30) is None

    wait_until(is_made, what=f"{topic} is recreated")
