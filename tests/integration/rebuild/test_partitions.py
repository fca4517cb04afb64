"""All topics are moved to more partitions, while events arrive from producers that know only the old number."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Producer, murmur2
from confluent_kafka.admin import NewPartitions

from support.streams.lives import (
    assert_all_is_right,
    expected,
    lives,
    produce,
    states_on_topic,
    topics_on,
)
from support.streams.processes import Load, pending_notifications
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas import topics
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.contract.live_version import REBUILD_ID, announce
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.instances.pending_notifications import instance_key
from taskbridge.streams.table_versions import Versions, instances_changelog
from taskbridge.streams.transactions.positions import POSITION_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.streams.processes import Read, Rebuild, Worker
    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import TaskEvent

pytestmark = [pytest.mark.integration, pytest.mark.disasters, pytest.mark.timeout(400)]

BEFORE, AFTER = 3, 5


@pytest.fixture
def partitions() -> int:
    return BEFORE


class OldProducer:
    """An edge that knows the old number of partitions, and does not refresh it."""

    def __init__(self, connection: Connection) -> None:
        config: dict[str, Any] = producer_config(connection.bootstrap_servers)
        self._producer = Producer(
            config | {"topic.metadata.refresh.interval.ms": -1, "metadata.max.age.ms": 86_400_000}
        )
        self._codec = task_event_codec(connection.registry)

    def produce(self, events: Iterable[TaskEvent]) -> None:
        for event in events:
            key = event.instance_id.encode()
            self._producer.produce(
                TASK_EVENTS.name,
                key=key,
                value=self._codec.encode(event),
                headers=[*event_headers(event)],
                partition=murmur2(key, BEFORE),
            )
        assert self._producer.flush(30) == 0


def misplaced(read: Read, topic: str) -> list[bytes]:
    """Keys of the topic that are on another partition than their target."""
    found = [(instance_key(bytes(each.key() or b"")), each.partition()) for each in read(topic)]
    return [key for key, partition in found if key not in (b"", POSITION_KEY) and murmur2(key, AFTER) != partition]


def test_all_topics_move_to_more_partitions_while_events_arrive_and_nothing_is_lost_or_wrong(
    connection: Connection, workers: tuple[Worker, Worker], rebuild: Rebuild, read: Read, eventually: Any
) -> None:
    old = OldProducer(connection)
    events = lives(80, seed=41)
    old.produce(events[:250])
    for worker in workers:
        worker.start()

    def folded() -> bool:
        right = {key: each.state.tasks for key, each in expected(connection, read).items()}
        found = {key: each.tasks for key, each in states_on_topic(connection, read).items()}
        return bool(found) and all(right[key] == tasks for key, tasks in found.items())

    def caught_up() -> bool:
        alive = {key for key, each in expected(connection, read).items() if each.state.lifecycle is Lifecycle.ACTIVE}
        return folded() and states_on_topic(connection, read).keys() == alive

    eventually(folded, what="the first events are folded")
    load = Load(connection, seed=42)
    try:
        old.produce(events[250:350])
        moved = rebuild.run("--rebuild", "--partitions", str(AFTER))
        assert (moved["partitions"], moved["lost"]) == (AFTER, 0)
        # It has not seen the new ones yet.
        old.produce(events[350:])
    finally:
        load.stop()
    eventually(lambda: all(each.is_ready() for each in workers), what="the workers are ready")
    eventually(caught_up, what="all events are folded")
    eventually(lambda: not pending_notifications(connection), what="all is published again")
    assert_all_is_right(connection, read, counted=False)

    there = topics_on(connection)
    moved_topics = [each.name for each in topics.ALL if not each.any_partitions]
    assert {len(there[name]) for name in (*moved_topics, instances_changelog(2).name)} == {AFTER}
    assert len(there[topics.PEOPLE.name]) == len(there[topics.FORMS.name]) == BEFORE
    for topic in (TASK_STATES.name, TASK_NOTIFICATIONS.name, instances_changelog(2).name):
        assert misplaced(read, topic) == []
    sent_on = misplaced(read, TASK_EVENTS.name)
    assert sent_on, "or nothing was tried"

    # A rebuild reads an event from any partition.
    again = rebuild.run("--rebuild", "--dry-run")
    assert (again["lost"], again["notifications"]) == (0, 0)
    assert_refused(rebuild, "Kafka cannot remove any", "--rebuild", "--partitions", str(BEFORE))

    # The next move died in the midst of it: workers wait, and nothing else is done before it has come to its end.
    die_moving(connection, live=2, partitions=AFTER + 1)
    produce(connection, lives(20, seed=43))
    assert_refused(rebuild, f"--rebuild --partitions {AFTER + 1} first", "--republish")
    assert rebuild.run("--rebuild", "--partitions", str(AFTER + 1))["partitions"] == AFTER + 1
    eventually(lambda: all(each.is_ready() for each in workers), what="the workers are ready")
    eventually(caught_up, what="all events are folded")
    eventually(lambda: not pending_notifications(connection), what="all is published again")
    assert_all_is_right(connection, read, counted=False)

    # Readers of the recreated topic find every state there, before any worker has started.
    for worker in workers:
        assert worker.end(signal.SIGTERM) == 0
    before = states_on_topic(connection, read)
    rebuild.run("--rebuild", "--partitions", str(AFTER + 2))
    assert states_on_topic(connection, read) == before
    assert len(topics_on(connection)[TASK_STATES.name]) == AFTER + 2


def assert_refused(rebuild: Rebuild, because: str, *arguments: str) -> None:
    assert rebuild.start(*arguments).wait(60) == 1
    assert because in rebuild.log_path.read_text()


def die_moving(connection: Connection, *, live: int, partitions: int) -> None:
    """The state of a move that died once the events topic had its partitions."""
    with closing(JointProducer(producer_config(connection.bootstrap_servers), REBUILD_ID)) as writer:
        writer.claim()
        with writer.transaction():
            announce(writer, Versions(live, live + 1, partitions))
    admin = connection.admin()
    cast("Any", admin).create_partitions([NewPartitions(TASK_EVENTS.name, partitions)])[TASK_EVENTS.name].result(30)
