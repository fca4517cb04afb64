"""Inboxes that nothing on Kafka tells of any more come back whole, from the states of the instances."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Producer, TopicPartition
from msgspec import structs
from rebuilding import ends, processed

from running_workers import Load, Worker
from schemas.codec import task_notification_codec
from schemas.events import Change, Status, TaskNotification, View, notification_key
from schemas.topics import TASK_NOTIFICATIONS
from service.kafka import producer_config
from stream_lives import assert_all_is_right, expected, lives, produce, read_topic
from streams.fold.views import show
from streams.inbox_table import layout
from streams.inbox_table.changes import inbox_changes
from streams.rebuild.comparison import told_again
from streams.rebuild.operation import delete_topics
from streams.tables.changelog_topic import INBOX_CHANGELOG

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message
    from rebuilding import Rebuild

    from deploy.connection import Connection

    type_read = Callable[[str], list[Message]]

STALE = b"stale\0"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def connection(anew: Connection) -> Connection:
    return anew


@pytest.fixture
def read(connection: Connection) -> type_read:
    return partial(read_topic, connection)


def lines_kept(read: type_read) -> dict[bytes, bytes]:
    """The lines and counts of all inboxes, by their changelog; when a line came is left out."""
    found = {bytes(each.key() or b""): each.value() for each in read(INBOX_CHANGELOG.name)}
    return comparable({key: bytes(value) for key, value in found.items() if value is not None})


def lines_by_the_states(connection: Connection, read: type_read) -> dict[bytes, bytes]:
    """The same as the plain fold of the events has it."""
    store: dict[bytes, bytes] = {}
    for instance in expected(connection, read).values():
        for key, value in inbox_changes(told_again(show(instance), number=1), stored=store.get).items():
            if value is None:
                store.pop(key, None)
            else:
                store[key] = value
    return comparable(store)


def comparable(store: dict[bytes, bytes]) -> dict[bytes, bytes]:
    lines = {key: _timeless(store[entry]) for key, entry in _entries(store).items()}
    return lines | {key: value for key, value in store.items() if key.startswith(b"C")}


def _timeless(item: bytes) -> bytes:
    return layout.write_item(structs.replace(layout.read_item(item), created_at=0, updated_at=0))


def _entries(store: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The key of each line, and that of its item, which must be there."""
    found: dict[bytes, bytes] = {}
    for key, entered in store.items():
        if key.startswith(b"L"):
            user, view, suffix = _parts(key)
            found[key] = b"E" + user + view + entered + suffix
    assert set(found.values()) == {key for key in store if key.startswith(b"E")}
    return found


def _parts(key: bytes) -> tuple[bytes, bytes, bytes]:
    """User, view and line: of ids without a zero byte in them."""
    corp, user, rest = key[1:].split(b"\0", 2)
    return corp + b"\0" + user + b"\0", rest[:1], rest[1:]


def tell_of_nothing(connection: Connection) -> None:
    """A line of an instance that there is not."""
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
    """Their seven days are over."""
    before = [
        TopicPartition(TASK_NOTIFICATIONS.name, partition, end)
        for partition, end in ends(connection)[TASK_NOTIFICATIONS.name].items()
    ]
    admin = connection.admin()
    for each in cast("dict[TopicPartition, Any]", admin.delete_records(before)).values():
        each.result(60)


def test_inboxes_without_their_changelog_and_without_notifications_come_back_whole_beside_live_workers(
    connection: Connection,
    workers: tuple[Worker, Worker],
    rebuild: Rebuild,
    read: type_read,
    eventually: Any,
) -> None:
    def whole() -> bool:
        return lines_kept(read) == lines_by_the_states(connection, read)

    first, _ = workers
    engine_alone = Worker(first.data_dir.parent, connection, STREAMS_TASK_CENTER="false")
    produce(connection, lives(150, seed=31))
    engine_alone.start()
    processed(connection, [engine_alone], eventually)
    assert engine_alone.end(signal.SIGTERM) == 0
    lose_notifications(connection)

    # The task center is switched on when nobody tells of the tasks any more.
    rebuild.run("--retell")
    for worker in workers:
        worker.start()
    processed(connection, workers, eventually)
    eventually(whole, what="the inboxes are whole")

    # Beside workers at work, with a line that should not be there.
    tell_of_nothing(connection)
    load = Load(connection, seed=32)
    try:
        eventually(lambda: STALE in [key[-len(STALE) :] for key in lines_kept(read)], what="the line is there")
        assert rebuild.run("--retell")["instances"] >= 150
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
    rebuild.run("--retell")
    first.start()
    processed(connection, [first], eventually)
    eventually(whole, what="the inboxes are whole")
