"""Lives of instances for the streams service, and checks of their results on the topics."""

from __future__ import annotations

import random
import socket
import struct
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from msgspec.structs import replace

from support.inbox import inbox_of
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import task_event_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.dead_letters import DlqReason, dead_letter_of
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import SOURCE_YIDA, Action, Lifecycle, Person, TaskEvent, TaskNotification, TaskState
from taskbridge.schemas.topics import TASK_EVENTS, TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.schemas.views import views
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.rejections import accept
from taskbridge.streams.fold.views import notifications
from taskbridge.streams.transactions.offsets import describe_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.streams.fold.instance import Instance


SENT_DIRECTLY = "sent-directly-"
"""How corps begin whose notifications come from a test and from no event."""


_UNDECIDED_S = 60.0
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def read_topic(connection: Connection, topic: str) -> list[Message]:
    """Every record of a topic, from its beginning to its present end; each partition in order.

    What a transaction under way has written by now is waited for: positions are seen to be committed before every
    partition of their transaction is.
    """
    config: dict[str, Any] = consumer_config(connection.bootstrap_servers, "tests")
    looking = Consumer({**config, "isolation.level": "read_uncommitted"})
    partitions = sorted(looking.list_topics(topic, timeout=60).topics[topic].partitions)
    bounds = {number: _bounds(looking, TopicPartition(topic, number)) for number in partitions}
    ends = {number: end for number, (_, end) in bounds.items()}
    looking.close()
    consumer = Consumer(config)
    deadline = time.monotonic() + _UNDECIDED_S
    consumer.assign([TopicPartition(topic, number, first) for number, (first, end) in bounds.items() if first < end])
    found: list[Message] = []
    # A position moves past records that compaction removed, so it reaches the end with any records left.
    while any(at.offset < ends[at.partition] for at in consumer.position(consumer.assignment())):
        read = [each for each in consumer.consume(10_000, 0.05) if each.error() is None]
        found += read
        deadline = time.monotonic() + _UNDECIDED_S if read else deadline
        assert time.monotonic() < deadline, f"a transaction on {topic} is not decided"
    consumer.close()
    return found


def _bounds(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset and the next one. A broker may not know yet that it leads a new partition."""
    deadline = time.monotonic() + _UNDECIDED_S
    while True:
        try:
            return consumer.get_watermark_offsets(partition)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise


def lives(count: int, seed: int) -> list[TaskEvent]:
    """The events of ``count`` instances, all shuffled together."""
    chance = random.Random(seed)

    def event(action: Action, instance_id: str, at: int, **more: Any) -> TaskEvent:
        return TaskEvent(
            event_id=str(uuid.UUID(int=chance.getrandbits(128))),
            source=SOURCE_YIDA,
            action=action,
            corp_id="corp",
            app_type="APP",
            instance_id=instance_id,
            occurred_at=1_700_000_000_000 + at,
            received_at=1_700_000_000_000,
            **more,
        )

    events: list[TaskEvent] = []
    for _ in range(count):
        instance_id = str(uuid.UUID(int=chance.getrandbits(128)))
        ann, bob, cai = chance.sample([f"user-{number}" for number in range(20)], 3)
        events += [
            event(Action.CREATED, instance_id, 1, originator=Person(ann), title=f"Request {instance_id[:4]}"),
            event(Action.CREATED, instance_id, 2, task_id="T-1", recipient_ids=(bob, cai), serial_no="1"),
            event(Action.COMPLETED, instance_id, 3, task_id="T-1", actor_id=bob, outcome="agree"),
            event(Action.CREATED, instance_id, 4, task_id="T-2", recipient_ids=(cai,)),
            event(Action.CANCELLED, instance_id, 5, task_id="T-2", actor_id=ann),
            event(Action.COPIED, instance_id, 6, recipient_ids=(cai,), approved_result="agree", finished_at=6),
        ]
        if chance.random() < 0.2:
            events.append(event(Action.DELETED, instance_id, 7))
    repeated = events + chance.sample(events, count)
    chance.shuffle(repeated)
    return repeated


def produce(connection: Connection, events: Iterable[TaskEvent], *, pause_s: float = 0) -> None:
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    codec = task_event_codec(connection.registry)
    for event in events:
        producer.produce(
            TASK_EVENTS.name,
            key=event.instance_id.encode(),
            value=codec.encode(event),
            headers=[*event_headers(event)],
        )
        if pause_s:
            producer.flush()
            time.sleep(pause_s)
    assert producer.flush(30) == 0


def headers_of(message: Message) -> dict[str, bytes]:
    return dict(cast("list[tuple[str, bytes]]", message.headers() or []))


_SMALL_BYTES = 100_000
"""An event that makes an instance of these tests too large is larger than this."""


def expected(connection: Connection, read_topic: Callable[[str], list[Message]]) -> dict[str, Instance]:
    """The plain fold of the events on the topic; events that cannot be folded or stored count as nothing.

    Events that the worker parked as too large are left out, and must be large: the worker's reason alone is not enough.
    """
    codec = task_event_codec(connection.registry)
    instances: dict[str, Instance] = {}
    too_large = {
        (letter.partition, letter.offset)
        for letter in map(dead_letter_of, read_topic(TASK_EVENTS_DLQ.name))
        if letter.reason == DlqReason.TOO_LARGE
    }
    for message in read_topic(TASK_EVENTS.name):
        with suppress(RecordError):
            event = accept(codec.decode(message.value()))
            if (message.partition(), message.offset()) in too_large:
                size = len(message.value() or b"")
                assert size > _SMALL_BYTES, f"an event of {size} bytes was parked as too large"
            elif message.key() == event.instance_id.encode():
                instances[event.instance_id] = fold(instances.get(event.instance_id), event)
    return instances


def states_on_topic(connection: Connection, read_topic: Callable[[str], list[Message]]) -> dict[str, TaskState]:
    """The latest state of each instance; a tombstone leaves none."""
    codec = task_state_codec(connection.registry)
    found: dict[str, TaskState] = {}
    for message in read_topic(TASK_STATES.name):
        key, value = bytes(message.key() or b"").decode(), message.value()
        if value is None:
            found.pop(key, None)
        else:
            found[key] = codec.decode(value)
    return found


def notifications_on_topic(
    connection: Connection, read_topic: Callable[[str], list[Message]]
) -> list[TaskNotification]:
    """Those that the service wrote: tests of the inbox write some to the topic themselves, to people of their own."""
    codec = task_notification_codec(connection.registry)
    return [
        codec.decode(message.value())
        for message in read_topic(TASK_NOTIFICATIONS.name)
        if not bytes(message.key() or b"").startswith(SENT_DIRECTLY.encode())
    ]


def assert_all_is_right(
    connection: Connection,
    read_topic: Callable[[str], list[Message]],
    *,
    instances: Mapping[str, Instance] | None = None,
    counted: bool = True,
    seen: Callable[[TaskState], object] | None = None,
) -> None:
    """States and folded notifications follow from the events on the topic, or equal these instances.

    Unless changes were ``counted`` from the beginning, revisions may differ. ``seen`` selects what is compared.
    """
    if instances is None:
        instances = expected(connection, read_topic)
    alive = {key: each for key, each in instances.items() if each.state.lifecycle is Lifecycle.ACTIVE}
    right = {key: instance.state for key, instance in alive.items()}
    found = states_on_topic(connection, read_topic)
    if not counted:
        right, found = ({key: replace(each, revision=0) for key, each in all_.items()} for all_ in (right, found))
    if seen is not None:
        right, found = ({key: seen(each) for key, each in all_.items()} for all_ in (right, found))
    differ = {key: (found.get(key), right.get(key)) for key in found | right if found.get(key) != right.get(key)}
    assert not differ, f"found, and as it should be: {len(differ)} of {len(right)}, such as {list(differ.items())[:3]}"
    inbox = inbox_of(notifications_on_topic(connection, read_topic))
    assert {(line.instance_id, line.user_id, line.view, line.task_id) for line in inbox} == {
        (key, line.user_id, line.view, line.task_id)
        for key, instance in alive.items()
        for line in views(instance.state)
    }


def assert_notified_exactly_once(
    connection: Connection, read_topic: Callable[[str], list[Message]], events: Iterable[TaskEvent] | None = None
) -> None:
    """The notifications are exactly those of the plain fold, each as often; only of these events' instances, if given.

    An event that is on the topic twice is published twice, on purpose: see design.md.
    """
    ours = None if events is None else {event.instance_id for event in events}
    codec, decoder = task_event_codec(connection.registry), task_notification_codec(connection.registry)
    instances: dict[str, Instance] = {}
    right: Counter[str] = Counter()
    for message in read_topic(TASK_EVENTS.name):
        if ours is None or bytes(message.key() or b"").decode() in ours:
            event = codec.decode(message.value())
            before = instances.get(event.instance_id)
            instances[event.instance_id] = after = fold(before, event)
            right.update(str(each) for each in notifications(before, after, event))
    found = (decoder.decode(message.value()) for message in read_topic(TASK_NOTIFICATIONS.name))
    assert Counter(str(each) for each in found if ours is None or each.instance_id in ours) == right


def caught_up(connection: Connection, topic: str = TASK_EVENTS.name) -> bool:
    """Whether the workers have committed all records that are on the topic."""
    config = {
        "bootstrap.servers": connection.bootstrap_servers,
        "group.id": "taskbridge-streams",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        # The last record may be followed by transaction markers: only reading shows whether records are left.
        "isolation.level": "read_committed",
    }
    consumer = Consumer(config)
    try:
        partitions = [TopicPartition(topic, number) for number in topics_on(connection)[topic]]
        try:
            committed = consumer.committed(partitions, timeout=60)
        except KafkaException:
            return False  # a broker that has just started has no coordinator for the group yet
        consumer.assign([TopicPartition(topic, at.partition, max(0, at.offset)) for at in committed])
        unread = {at.partition for at in committed}
        while unread:
            for message in consumer.consume(len(unread), 0.1):
                error = message.error()
                if error is None or error.code() != KafkaError._PARTITION_EOF:
                    return False
                unread.discard(message.partition())
        return True
    finally:
        consumer.close()


def topics_on(connection: Connection) -> dict[str, list[int]]:
    """Those of taskbridge, with their partitions."""
    there = connection.admin().list_topics(timeout=60).topics
    return {name: list(each.partitions) for name, each in there.items() if name.startswith("taskbridge")}


def remove_workers(connection: Connection) -> None:
    """Remove the workers of earlier tests from their group: a new one would wait until the sessions of all have ended.

    They were killed, or ended as members that keep their place for a restart.
    """
    if topics_on(connection):
        for each in describe_group(connection.admin(), APP_ID).members:
            for server in connection.bootstrap_servers.split(","):  # one of them is the coordinator
                _leave(server, each.member_id)


def _leave(server: str, member_id: str) -> None:
    """A LeaveGroup request, which clients send for themselves alone."""
    leave_group, version, correlation = 13, 1, 0
    request = struct.pack(">hhi", leave_group, version, correlation)
    for text in ("tests", APP_ID, member_id):
        request += struct.pack(">h", len(text)) + text.encode()
    host, _, port = server.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        connection.recv(64)


def delete_all_topics(connection: Connection) -> None:
    """Delete all topics of the streams service, and wait until its workers are gone."""
    admin = connection.admin()
    remove_workers(connection)
    if left := topics_on(connection):
        for future in cast("dict[str, Any]", admin.delete_topics([*left], operation_timeout=30)).values():
            future.result(60)
    deadline = time.monotonic() + 60
    # The group's positions go with the topics; its members are gone when their session ends.
    while topics_on(connection) or (left and describe_group(admin, APP_ID).members):
        assert time.monotonic() < deadline, "topics or workers of earlier tests are still there"
        time.sleep(0.1)
