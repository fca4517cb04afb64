"""Inboxes whose notifications are gone from Kafka are complete again, from the states of the instances."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Producer, TopicPartition

from support.streams.lives import assert_all_is_right, lives, produce
from support.streams.processes import Load, Worker, ends, expected_entries, processed, stored_entries
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import Change, Status, TaskNotification, View, notification_key
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.rebuild.operation import delete_topics
from taskbridge.streams.table_versions import INBOX_CHANGELOG

if TYPE_CHECKING:
    from support.streams.processes import Read, Rebuild
    from taskbridge.cli.connection import Connection

STALE = b"stale\0"

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(400)]


def tell_of_nothing(connection: Connection) -> None:
    """An entry of an instance that does not exist."""
    stale = TaskNotification(
        notification_id="stale",
        corp_id="corp",
        recipient_id="user-1",
        view=View.PENDING,
        change=Change.ADDED,
        instance_id="nowhere",
        task_id="stale",
        title="Stale",
        url=None,
        app_type="APP",
        originator=None,
        actor_id=None,
        status=Status.PENDING,
        occurred_at=1_700_000_000_000,
        event_id="none",
    )
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    producer.produce(
        TASK_NOTIFICATIONS.name,
        key=notification_key("corp", "user-1"),
        value=task_notification_codec(connection.registry).encode(stale),
    )
    assert producer.flush(30) == 0


def lose_notifications(connection: Connection) -> None:
    """Delete all notifications, as after their retention of seven days."""
    before = [
        TopicPartition(TASK_NOTIFICATIONS.name, partition, end)
        for partition, end in ends(connection)[TASK_NOTIFICATIONS.name].items()
    ]
    admin = connection.admin()
    for each in cast("dict[TopicPartition, Any]", admin.delete_records(before)).values():
        each.result(60)


def test_inboxes_without_their_changelog_and_without_notifications_come_back_whole_while_workers_run(
    connection: Connection,
    workers: tuple[Worker, Worker],
    rebuild: Rebuild,
    read: Read,
    eventually: Any,
) -> None:
    def whole() -> bool:
        return stored_entries(read) == expected_entries(connection, read)

    first, _ = workers
    engine_alone = Worker(first.data_dir.parent, connection, STREAMS_TASK_CENTER="false")
    produce(connection, lives(150, seed=31))
    engine_alone.start()
    try:
        processed(connection, [engine_alone], eventually)
        assert engine_alone.end(signal.SIGTERM) == 0
    finally:
        engine_alone.kill_if_running()
    lose_notifications(connection)

    # The task center is switched on when no notification of the tasks is left.
    rebuild.run("--republish")
    for worker in workers:
        worker.start()
    processed(connection, workers, eventually)
    eventually(whole, what="the inboxes are whole")

    # While workers run, with an entry that should not exist.
    tell_of_nothing(connection)
    load = Load(connection, seed=32)
    try:
        eventually(lambda: any(key.endswith(STALE) for key in stored_entries(read)), what="the line is there")
        assert rebuild.run("--republish")["instances"] >= 150
    finally:
        load.stop()
    processed(connection, workers, eventually)
    eventually(whole, what="the inboxes are whole, and the line is gone")
    assert_all_is_right(connection, read)

    # The changelog is lost, and each worker's disk with it.
    for worker in workers:
        assert worker.end(signal.SIGTERM) == 0
        shutil.rmtree(worker.data_dir)
    lose_notifications(connection)
    delete_topics(connection.admin(), [INBOX_CHANGELOG.name])
    rebuild.run("--republish")
    first.start()
    processed(connection, [first], eventually)
    eventually(whole, what="the inboxes are whole")
