"""States and notifications come back where they are gone, and get new fields, from the changelog of the instances."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Producer, TopicPartition

from support.streams.fold_inputs import by_third_state_schema, published_schema
from support.streams.lives import assert_all_is_right, lives, produce, states_on_topic
from support.streams.processes import Load, Worker, ends_of, processed
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.fold.stored_instance import age_of, state_value
from taskbridge.streams.instances.pending_notifications import FIRST_INSTANCE
from taskbridge.streams.rebuild.operation import delete_topics
from taskbridge.streams.table_versions import instances_changelog

if TYPE_CHECKING:
    from support.streams.processes import Read, Rebuild
    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(400)]

CHANGELOG = instances_changelog(1).name


def lose_notifications(connection: Connection) -> None:
    """Delete all notifications, as after their retention of seven days."""
    before = [
        TopicPartition(TASK_NOTIFICATIONS.name, partition, end)
        for partition, end in ends_of(connection, TASK_NOTIFICATIONS.name).items()
    ]
    admin = connection.admin()
    for each in cast("dict[TopicPartition, Any]", admin.delete_records(before)).values():
        each.result(60)


def write_as_the_release_before(connection: Connection, read: Read) -> None:
    """The latest version of each instance, in the changelog and on the topic, with the fields of that release only."""
    schema_id = connection.registry.client.register(TASK_STATES.subject, published_schema("TaskState", 3))
    latest: dict[bytes, tuple[int, bytes]] = {
        key: (each.partition() or 0, bytes(each.value() or b""))
        for each in read(CHANGELOG)
        if (key := bytes(each.key() or b"")) >= FIRST_INSTANCE
    }
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for key, (partition, stored) in latest.items():
        older = by_third_state_schema(stored, schema_id=schema_id)
        producer.produce(CHANGELOG, key=key, value=older, partition=partition)
        if not age_of(older).is_deleted:
            producer.produce(TASK_STATES.name, key=key, value=state_value(older), partition=partition)
    assert producer.flush(30) == 0


def test_states_and_notifications_are_published_again_while_workers_run(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    produce(connection, lives(80, seed=31))
    for worker in workers:
        worker.start()
    processed(connection, workers, eventually)
    assert_all_is_right(connection, read)
    lose_notifications(connection)
    delete_topics(connection.admin(), [TASK_STATES.name])

    load = Load(connection, seed=32)
    try:
        found = rebuild.run("--republish")
    finally:
        load.stop()
    assert found["instances"] >= 80
    processed(connection, workers, eventually)
    assert_all_is_right(connection, read)


# In every run, test_upgrade.py publishes the states of the last release again.
@pytest.mark.nightly
def test_states_of_an_earlier_release_get_the_fields_of_this_one(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    first, _ = workers
    produce(connection, lives(150, seed=33))
    first.start()
    processed(connection, [first], eventually)
    assert first.end(signal.SIGTERM) == 0
    write_as_the_release_before(connection, read)
    states = states_on_topic(connection, read)
    assert {state.began_at for state in states.values()} == {None}

    found = rebuild.run("--republish")
    assert found["instances"] >= len(states) > 0
    first.start()
    processed(connection, [first], eventually)
    assert_all_is_right(connection, read)
