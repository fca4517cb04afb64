"""Edge, streams, task center and the operator's commands on a Kafka that requires TLS and a password."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, cast

import pytest

from support import forked
from support.center_process import CenterProcess, lists_of
from support.edge.fakes import SYSTEM_TOKEN, parameters_of, write_credentials
from support.edge.process import RunningEdge, wait_until
from support.kafka.secured import SecuredKafka
from support.streams.lives import assert_all_is_right, read_topic, states_on_topic
from support.streams.processes import Worker
from taskbridge.cli.callbacks import post_callback
from taskbridge.cli.connection import Connection
from taskbridge.cli.doctor_checks import Examination
from taskbridge.schemas import topics
from taskbridge.schemas.events import Status
from taskbridge.schemas.registry import schema_text
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Generator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


@pytest.fixture
def outside(secured: SecuredKafka, stack: Endpoints) -> Generator[Connection]:
    """A connection of its own, to look at the topics."""
    connection = Connection(secured.open_servers, stack.registry_url, {})
    yield connection
    connection.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_callback_passes_through_all_of_it(
    secured: SecuredKafka, outside: Connection, tmp_path: Path, mechanism: str
) -> None:
    config = str(secured.config_file(mechanism))
    taskbridge(outside, secured, config, "topics", "apply")
    edge = RunningEdge(
        tmp_path,
        bootstrap_servers=secured.servers,
        registry_url=outside.registry_url,
        EDGE_KAFKA_CONFIG_FILE=config,
    )
    worker = Worker(
        tmp_path, outside, STREAMS_KAFKA_BOOTSTRAP_SERVERS=secured.servers, STREAMS_KAFKA_CONFIG_FILE=config
    )
    center = CenterProcess(
        tmp_path, outside, CENTER_KAFKA_BOOTSTRAP_SERVERS=secured.servers, CENTER_KAFKA_CONFIG_FILE=config
    )
    edge.start()
    worker.start()
    center.start()
    instance_id = f"through {mechanism}"
    try:
        wait_until(edge.is_whole, what="the edge is ready")
        parameters = parameters_of("create", instance_id=instance_id)
        assert post(edge, parameters)["durability"] == "kafka"
        wait_until(worker.is_ready, what="the worker is ready")
        wait_until(lambda: instance_id in states(outside), what="the instance has a state")
        state = states(outside)[instance_id]
        assert state.tasks[0].status is Status.PENDING
        [assignee, *_] = state.tasks[0].assignee_ids
        wait_until(center.is_ready, what="the task center is ready")

        def is_listed() -> bool:
            found = lists_of(center.url, state.corp_id, assignee) or {}
            return ("pending", instance_id) in {(each.view, each.instance_id) for each in found}

        wait_until(is_listed, what="the task is in its assignee's list")
        [notification, *_] = taskbridge(
            outside, secured, config, "tail", TASK_NOTIFICATIONS.name, "--from-beginning", "--max", "1", "--json"
        )
        assert notification["value"]["corp_id"]
        assert taskbridge(outside, secured, config, "dlq", "list", "--json") == []
        assert taskbridge(outside, secured, config, "quarantine", "list", "--json") == []
        assert_all_is_right(outside, lambda topic: read_topic(outside, topic))
        assert edge.stop() == 0
    finally:
        edge.kill()
        worker.kill_if_running()
        center.kill()


def test_with_a_wrong_password_the_edge_still_stores_accepted_callbacks(
    secured: SecuredKafka, outside: Connection, tmp_path: Path
) -> None:
    wrong, right = (
        str(secured.config_file("SCRAM-SHA-512", password="wrong")),
        str(secured.config_file("SCRAM-SHA-512")),
    )
    taskbridge(outside, secured, right, "topics", "apply")
    edge = RunningEdge(
        tmp_path,
        bootstrap_servers=secured.servers,
        registry_url=outside.registry_url,
        EDGE_KAFKA_CONFIG_FILE=wrong,
    )
    edge.start()
    worker = Worker(tmp_path, outside, STREAMS_KAFKA_BOOTSTRAP_SERVERS=secured.servers, STREAMS_KAFKA_CONFIG_FILE=wrong)
    worker.start()
    try:
        wait_until(edge.is_ready, what="the edge can store callbacks")
        parameters = parameters_of("create", instance_id="spooled first")
        assert post(edge, parameters)["durability"] == "spool"
        wait_until(lambda: worker.readiness().get("problems"), what="the worker reports the problem")
        assert not worker.readiness()["ready"]
        edge.stop()
        edge.environment["EDGE_KAFKA_CONFIG_FILE"] = right
        edge.start()
        wait_until(edge.has_drained, what="the spool is empty")
        events = [each.key() for each in read_topic(outside, TASK_EVENTS.name)]
        assert events.count(b"spooled first") == 1
    finally:
        edge.kill()
        worker.kill_if_running()


def test_the_doctor_names_what_is_wrong_with_such_a_kafka(
    secured: SecuredKafka, outside: Connection, tmp_path: Path, disk_folder: Callable[[], Path]
) -> None:
    def found(**changes: str) -> dict[tuple[str, str], str]:
        environment = settings | changes
        return {(each.check, each.state): each.says for each in Examination(environment).findings()}

    credentials = tmp_path / "credentials.toml"
    write_credentials(credentials, SYSTEM_TOKEN)
    credentials.chmod(0o600)
    right = str(secured.config_file("SCRAM-SHA-512"))
    settings = {
        "EDGE_KAFKA_BOOTSTRAP_SERVERS": secured.servers,
        "EDGE_KAFKA_CONFIG_FILE": right,
        "EDGE_SCHEMA_REGISTRY_URL": outside.registry_url,
        "EDGE_CREDENTIALS_FILE": str(credentials),
        "EDGE_DATA_DIR": str(disk_folder()),
    }
    admin = outside.admin()
    names = [topic.name for topic in topics.ALL]
    there = sorted(set(names) & set(admin.list_topics(timeout=60).topics))
    for deleted in cast("dict[str, Any]", admin.delete_topics(there, operation_timeout=30)).values() if there else ():
        deleted.result()
    assert ("topics", "failed") in found()

    taskbridge(outside, secured, right, "topics", "apply")
    outside.registry.register(topics.ALL)
    well = found()
    assert not [each for each in well if each[1] == "failed"], well
    assert {("kafka", "ok"), ("replicas", "ok"), ("rights", "ok"), ("schemas", "ok"), ("clock", "ok")} <= {*well}
    # The only finding: one broker, so one replica.
    assert {check for check, state in well if state == "warning"} - {"fsync"} == {"brokers"}

    assert "12 partitions, but 5 are configured" in found(TASKBRIDGE_PARTITIONS="5")["topics", "warning"]
    wrong = found(EDGE_KAFKA_CONFIG_FILE=str(secured.config_file("SCRAM-SHA-512", password="wrong")))
    assert "invalid credentials" in wrong["kafka", "failed"]
    plain = tmp_path / "plain.properties"
    plain.touch()
    assert "does not answer" in found(EDGE_KAFKA_CONFIG_FILE=str(plain))["kafka", "failed"]


def test_the_registry_checks_a_schema_without_registering_it(outside: Connection) -> None:
    client = outside.registry.client
    subject, other = "taskbridge.doctor-value", schema_text("Person")
    assert client.is_compatible(subject, other)
    client.register(subject, schema_text("TaskEvent"), compatibility="FULL_TRANSITIVE")
    assert client.is_compatible(subject, schema_text("TaskEvent"))
    assert not client.is_compatible(subject, other)


def post(edge: RunningEdge, parameters: dict[str, str]) -> dict[str, Any]:
    answer = post_callback(edge.url, "create", parameters, system_token=SYSTEM_TOKEN, encoding="json")
    assert answer.status == 200
    return cast("dict[str, Any]", answer.body)


def states(connection: Connection) -> dict[str, Any]:
    return states_on_topic(connection, lambda topic: read_topic(connection, topic))


def taskbridge(outside: Connection, secured: SecuredKafka, config: str, *arguments: str) -> list[dict[str, Any]]:
    """The program's JSON output, with Kafka's settings given as an operator gives them."""
    environment = {
        **os.environ,
        "TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": secured.servers,
        "TASKBRIDGE_SCHEMA_REGISTRY_URL": outside.registry_url,
        "TASKBRIDGE_KAFKA_CONFIG_FILE": config,
    }
    done = forked.taskbridge(*arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
