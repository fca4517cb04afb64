"""Live updates on a real Kafka: nothing missed, nothing twice, however connections break and partitions move."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from support import http_clients
from support.http_clients import EventStreamClient
from support.streams.event_streams_worker import EventStreamsWorker
from support.streams.lives import lives, produce
from taskbridge.runtime.kafka import admin_client, consumer_config, producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import Change, Status, TaskNotification, View, notification_key
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, Topic
from taskbridge.streams.cores.core import target_partition
from taskbridge.streams.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from taskbridge.cli.connection import Connection
    from taskbridge.local.jvm import Endpoints

    Stream = Callable[..., EventStreamClient]

pytestmark = pytest.mark.integration

ALL = range(DEFAULT_PARTITIONS)


class Notifications:
    """Writes notifications as the streams service does, each chunk a transaction."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._topic = topic
        config: dict[str, Any] = producer_config(connection.bootstrap_servers)
        self._producer = Producer({**config, "transactional.id": f"tests-{uuid.uuid4()}"})
        self._producer.init_transactions(30)
        self._codec = task_notification_codec(connection.registry)
        self._numbers: Iterator[int] = itertools.count()

    def publish(self, user_id: str, count: int = 1, *, corp_id: str = "corp", abort: bool = False) -> list[str]:
        """Returns the notifications' ids."""
        self._producer.begin_transaction()
        published = [f"{user_id}-{next(self._numbers)}" for _ in range(count)]
        for each in published:
            value = TaskNotification(
                notification_id=each,
                corp_id=corp_id,
                recipient_id=user_id,
                view=View.PENDING,
                change=Change.ADDED,
                instance_id=f"I-{each}",
                task_id="T-1",
                title="<b>请假</b>\n",
                url=None,
                app_type="APP",
                originator=None,
                actor_id=None,
                status=Status.PENDING,
                occurred_at=1_769_846_400_000,
                event_id="e",
            )
            self._producer.produce(self._topic, key=notification_key(corp_id, user_id), value=self._codec.encode(value))
        if abort:
            self._producer.abort_transaction(30)
            return []
        self._producer.commit_transaction(30)
        return published


@pytest.fixture(scope="module")
def topic(stack: Endpoints) -> str:
    """A topic like that of the notifications, whose records other tests compare with the events."""
    name = f"tests.notifications.{uuid.uuid4().hex[:8]}"
    admin = admin_client(stack.bootstrap_servers)
    apply_topics(admin, [Topic(name, None)], partitions=DEFAULT_PARTITIONS)
    offsets = Offsets(consumer_config(stack.bootstrap_servers, "tests"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(KafkaException, TimeoutError):  # until each partition has its leader
            offsets.ends(name, ALL)
            return name
    pytest.fail("the topic has no leaders")


@pytest.fixture
def notifications(connection: Connection, topic: str) -> Notifications:
    return Notifications(connection, topic)


@pytest.fixture
def start_worker(connection: Connection, topic: str) -> Generator[Callable[..., EventStreamsWorker]]:
    workers: list[EventStreamsWorker] = []

    def start(partitions: Any = ALL, **more: Any) -> EventStreamsWorker:
        workers.append(EventStreamsWorker(connection, topic, partitions, **more))
        return workers[-1].start()

    yield start
    for each in workers:
        each.stop()


@pytest.fixture
def stream_of() -> Generator[Callable[..., EventStreamClient]]:
    clients: list[EventStreamClient] = []

    def listen(worker: EventStreamsWorker, user_id: str, **more: Any) -> EventStreamClient:
        clients.append(EventStreamClient(f"{worker.url}/v1/corps/corp/users/{user_id}/events", **more))
        return clients[-1]

    yield listen
    for each in clients:
        each.cut()


def person() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def ids(client: EventStreamClient) -> list[str]:
    return [each["notification_id"] for each in client.events]


def wait_for_place(client: EventStreamClient) -> None:
    deadline = time.monotonic() + 10
    while client.last_event_id is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_missed_while_away_comes_first_and_once(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    worker, ann = start_worker(), person()
    client = stream_of(worker, ann).open()
    published = notifications.publish(ann, 3)
    client.wait_for(3)

    client.cut()
    published += notifications.publish(ann, 5)
    notifications.publish(ann, 2, abort=True)
    notifications.publish(person(), 50)
    client.open()
    published += notifications.publish(ann, 2)

    client.wait_for(10)
    assert ids(client) == published
    assert client.resets == []


def test_one_who_lost_the_connection_before_the_first_event_misses_nothing(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    worker, ann = start_worker(), person()
    client = stream_of(worker, ann).open()
    wait_for_place(client)
    client.cut()
    published = notifications.publish(ann)
    client.open().wait_for(1)
    assert ids(client) == published


def test_a_connection_that_breaks_all_the_time_under_load_misses_nothing_and_repeats_nothing(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    worker, people, chance = start_worker(heartbeat_s=0.3), [person() for _ in range(3)], random.Random(7)
    clients = [stream_of(worker, each).open() for each in people]
    for client in clients:
        wait_for_place(client)
    published: dict[str, list[str]] = {each: [] for each in people}
    for _ in range(25):
        for each, client in zip(people, clients, strict=True):
            published[each] += notifications.publish(each, chance.randint(1, 4))
            if chance.random() < 0.5:
                client.cut()
                published[each] += notifications.publish(each, chance.randint(0, 3) or 1)
                client.open()
    for each, client in zip(people, clients, strict=True):
        client.wait_for(len(published[each]))
        assert ids(client) == published[each]


def test_a_heartbeat_brings_a_place_to_go_on_from(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    worker, ann = start_worker(heartbeat_s=0.2), person()
    client = stream_of(worker, ann).open()
    wait_for_place(client)
    before = client.last_event_id
    partition = target_partition(notification_key("corp", ann), DEFAULT_PARTITIONS)
    neighbour = next(
        each
        for each in map(str, itertools.count())
        if target_partition(notification_key("corp", each), DEFAULT_PARTITIONS) == partition
    )
    notifications.publish(neighbour)
    deadline = time.monotonic() + 10
    while client.last_event_id == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert client.events == []
    assert "alive" in client.comments


def test_a_worker_forwards_to_the_owner_and_the_stream_follows_a_partition_that_moves(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    ann = person()
    mine = target_partition(notification_key("corp", ann), DEFAULT_PARTITIONS)
    owner, other = start_worker([mine]), start_worker([each for each in ALL if each != mine])
    owner.others, other.others = {other.url: [each for each in ALL if each != mine]}, {owner.url: [mine]}
    client = stream_of(other, ann).open()
    published = notifications.publish(ann, 2)
    client.wait_for(2)
    assert (owner.hub.count, other.hub.count) == (1, 0)

    owner.take([])
    assert client.ended.wait(10), "the stream ends, so that the client looks for the new owner"
    published += notifications.publish(ann, 3)
    owner.others, other.others = {other.url: ALL}, {}
    other.take(ALL)
    client.open()
    published += notifications.publish(ann, 1)

    client.wait_for(6)
    assert ids(client) == published
    assert other.hub.count == 1


def test_while_no_worker_has_the_partition_the_answer_says_when_to_retry(
    start_worker: Callable[..., EventStreamsWorker],
) -> None:
    worker = start_worker([])
    found = http_clients.get(f"{worker.url}/v1/corps/corp/users/ann/events")
    assert found.status_code == 503
    assert int(found.headers["retry-after"]) > 0
    assert found.json()["status"] == 503


def test_an_unknown_id_is_refused_and_one_of_a_recreated_topic_starts_over(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    worker, ann = start_worker(), person()
    refused = stream_of(worker, ann, last_event_id="nonsense").open()
    assert refused.status == 400
    assert "Last-Event-ID" in refused.body

    mine = target_partition(notification_key("corp", ann), DEFAULT_PARTITIONS)
    for broken in (f"{mine}-99999999", f"{mine + 1}-0"):
        client = stream_of(worker, ann, last_event_id=broken).open()
        published = notifications.publish(ann)
        client.wait_for(1)
        assert ids(client) == published
        assert len(client.resets) == 1
        assert client.last_event_id != broken
        client.cut()


def test_a_loss_by_retention_is_reported_before_the_remaining_notifications(
    connection: Connection,
    topic: str,
    start_worker: Callable[..., EventStreamsWorker],
    notifications: Notifications,
    stream_of: Stream,
    *,
    eventually: Any,
) -> None:
    worker, ann = start_worker(), person()
    mine = target_partition(notification_key("corp", ann), DEFAULT_PARTITIONS)
    client = stream_of(worker, ann).open()
    notifications.publish(ann, 2)
    client.wait_for(2)
    client.cut()
    notifications.publish(ann, 2)
    # As retention does: everything before the last record goes.
    before = int(str(client.last_event_id).partition("-")[2]) + 2
    left = notifications.publish(ann, 1)
    # The worker has seen them: one that lags behind would not notice the deletion.
    eventually(lambda: worker.reached(mine) > before, what="all is sent")
    where = TopicPartition(topic, mine, before)
    admin = connection.admin()
    admin.delete_records([where])[where].result(20)

    client.events.clear()
    client.open().wait_for(1)
    assert ids(client)[-1:] == left
    assert len(client.resets) == 1


def test_many_come_back_at_once_and_each_gets_theirs(
    start_worker: Callable[..., EventStreamsWorker], notifications: Notifications, stream_of: Stream
) -> None:
    worker, people = start_worker(), [person() for _ in range(40)]
    clients = [stream_of(worker, each).open() for each in people]
    for client in clients:
        wait_for_place(client)
        client.cut()
    published = {each: notifications.publish(each, 2) for each in people}
    for client in clients:
        client.open()
    for each, client in zip(people, clients, strict=True):
        client.wait_for(2)
        assert ids(client) == published[each]


def test_a_stop_does_not_wait_for_streams(start_worker: Callable[..., EventStreamsWorker], stream_of: Stream) -> None:
    worker = start_worker()
    client = stream_of(worker, person()).open()
    worker.stop()
    assert client.ended.wait(5)
    assert any(each.startswith("closed") for each in client.comments)


def test_what_happens_to_an_instance_reaches_whom_it_concerns_once_their_list_shows_it(
    connection: Connection, streams_service: Any, eventually: Any
) -> None:
    streams_service.start()
    streams_service.wait_until_ready()
    created, *_ = [each for each in lives(1, seed=31) if each.task_id == "T-1" and each.recipient_ids]
    # Only this person's: the worker also processes records that other tests left on the topics.
    bob = person()
    first = msgspec.structs.replace(created, instance_id=str(uuid.uuid4()), recipient_ids=(bob,))
    user = f"{streams_service.url}/v1/corps/corp/users/{bob}"
    eventually(lambda: http_clients.get(f"{user}/counts").status_code == 200, what="inboxes are there")
    client = EventStreamClient(f"{user}/events").open()
    try:
        wait_for_place(client)
        produce(connection, [first])
        event = client.wait_for(1)[0]
        assert (event["instance_id"], event["view"], event["change"]) == (first.instance_id, "pending", "ADDED")
        found = http_clients.get(f"{user}/tasks", params={"view": "pending"}).json()
        assert found["items"][0]["instance_id"] == first.instance_id
        assert "taskbridge_streams_sse_connections 1.0" in http_clients.get(f"{streams_service.url}/metrics").text

        assert streams_service.stop() == 0
        assert client.ended.wait(5)
        produce(
            connection,
            [
                msgspec.structs.replace(
                    first, event_id=str(uuid.uuid4()), task_id="T-9", occurred_at=first.occurred_at + 1
                )
            ],
        )
        streams_service.start()
        streams_service.wait_until_ready()
        eventually(lambda: client.cut() or client.open().status == 200, what="the stream is resumed")
        assert client.wait_for(2)[1]["task_id"] == "T-9"
    finally:
        client.cut()
