"""States and notifications that are gone from Kafka come back, from the changelog of the instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import TopicPartition

from support.streams.lives import assert_all_is_right, lives, produce
from support.streams.processes import Load, Worker, ends, processed
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.rebuild.operation import delete_topics

if TYPE_CHECKING:
    from support.streams.processes import Read, Rebuild
    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(400)]


def lose_notifications(connection: Connection) -> None:
    """Delete all notifications, as after their retention of seven days."""
    before = [
        TopicPartition(TASK_NOTIFICATIONS.name, partition, end)
        for partition, end in ends(connection)[TASK_NOTIFICATIONS.name].items()
    ]
    admin = connection.admin()
    for each in cast("dict[TopicPartition, Any]", admin.delete_records(before)).values():
        each.result(60)


def test_states_and_notifications_are_published_again_while_workers_run(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    produce(connection, lives(150, seed=31))
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
    assert found["instances"] >= 150
    assert found["notifications"] >= found["instances"]
    processed(connection, workers, eventually)
    assert_all_is_right(connection, read)
