"""The streams service on real Kafka: right states and notifications, also when the worker is killed in mid-stream."""

from __future__ import annotations

import json
import random
import time
import uuid
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema
from msgspec import structs
from typer.testing import CliRunner

from deploy.cli import app
from schemas.cloudevents import event_headers
from schemas.codec import Undecodable, framed, task_event_codec, task_notification_codec, task_state_codec
from schemas.events import SOURCE_YIDA, Action, Change, Lifecycle, Person, TaskEvent, TaskState
from schemas.registry import schema_text
from schemas.topics import TASK_EVENTS, TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from service.kafka import producer_config
from service.topic_admin import apply_topics
from streams.changelog_topic import INSTANCES_CHANGELOG
from streams.inbox import inbox_of
from streams.lifecycle import Instance, fold
from streams.stored_instance import pack
from streams.views import views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confluent_kafka import Message

    from deploy.connection import Connection

pytestmark = pytest.mark.integration


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
            event(Action.CREATED, instance_id, 2, task_id="T-1", recipient_ids=(bob, cai)),
            event(Action.COMPLETED, instance_id, 3, task_id="T-1", actor_id=bob),
            event(Action.CREATED, instance_id, 4, task_id="T-2", recipient_ids=(cai,)),
            event(Action.CANCELLED, instance_id, 5, task_id="T-2", actor_id=ann),
            event(Action.COPIED, instance_id, 6, recipient_ids=(cai,)),
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


def expected(connection: Connection, read_topic: Callable[[str], list[Message]]) -> dict[str, Instance]:
    """What the events on the topic come to, by the plain fold."""
    codec = task_event_codec(connection.registry)
    histories: dict[str, list[TaskEvent]] = {}
    for message in read_topic(TASK_EVENTS.name):
        try:
            event = codec.decode(message.value())
        except Undecodable:
            continue
        histories.setdefault(event.instance_id, []).append(event)
    instances = {key: reduce(fold, events, None) for key, events in histories.items()}
    return {key: instance for key, instance in instances.items() if instance is not None}


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


def assert_all_is_right(connection: Connection, read_topic: Callable[[str], list[Message]]) -> None:
    """States and folded notifications equal what the events say."""
    instances = expected(connection, read_topic)
    alive = {key: each for key, each in instances.items() if each.state.lifecycle is Lifecycle.ACTIVE}
    assert states_on_topic(connection, read_topic) == {key: instance.state for key, instance in alive.items()}
    codec = task_notification_codec(connection.registry)
    inbox = inbox_of(codec.decode(message.value()) for message in read_topic(TASK_NOTIFICATIONS.name))
    assert {(line.instance_id, line.user_id, line.view, line.task_id) for line in inbox} == {
        (key, line.user_id, line.view, line.task_id) for key, instance in alive.items() for line in views(instance)
    }


def caught_up(connection: Connection) -> bool:
    """Whether the worker has committed all that is on the topic."""
    consumer = Consumer({"bootstrap.servers": connection.bootstrap_servers, "group.id": "taskbridge-streams"})
    try:
        partitions = [TopicPartition(TASK_EVENTS.name, number) for number in range(12)]
        try:
            committed = consumer.committed(partitions, timeout=10)
        except KafkaException:
            return False  # a broker that has just started has no coordinator for the group yet: ask again
        return all(at.offset >= (end := consumer.get_watermark_offsets(at)[1]) or end == 0 for at in committed)
    finally:
        consumer.close()


def test_a_worker_killed_in_mid_stream_ends_in_the_same_states(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    chance = random.Random(7)
    produce(connection, lives(800, seed=1))
    for _ in range(4):
        streams_service.start()
        time.sleep(chance.uniform(3, 5))
        streams_service.kill()
    streams_service.start()
    eventually(lambda: caught_up(connection), what="all events are processed")
    assert_all_is_right(connection, read_topic)
    assert streams_service.stop() == 0


def test_a_worker_that_lost_its_disk_comes_back_from_the_changelog(
    connection: Connection,
    streams_service: Any,
    read_topic: Callable[[str], list[Message]],
    eventually: Any,
    tmp_path: Any,
) -> None:
    first = lives(100, seed=2)
    produce(connection, first[:400])
    streams_service.start()
    eventually(lambda: caught_up(connection), what="the first part is processed")
    streams_service.kill()
    streams_service.environment = {**streams_service.environment, "STREAMS_DATA_DIR": str(tmp_path / "another disk")}
    produce(connection, first[400:])
    streams_service.start()
    eventually(lambda: caught_up(connection), what="the rest is processed")
    assert_all_is_right(connection, read_topic)


def test_poison_records_are_parked_and_replayed_after_the_fix(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    codec = task_event_codec(connection.registry)
    events = lives(1, seed=3)
    key = events[0].instance_id.encode()
    good = codec.encode(events[0])
    # Of a version of the schema that the registry will only have later, under the next id that it gives.
    later_id = 1 + connection.registry.register_schema(f"probe-{uuid.uuid4()}", Schema(fresh_schema(), "AVRO"))
    painted = structs.replace(events[0], event_id=str(uuid.uuid4()), title="painted", occurred_at=1_800_000_000_000)
    poison: list[tuple[bytes | None, bytes | None, bytes]] = [
        (key, framed(later_id, codec.encode_body(painted) + b"\x06red"), b"undecodable"),
        (key, None, b"undecodable"),
        (key, b"", b"undecodable"),
        (key, b"junk", b"undecodable"),
        (key, good[:40], b"undecodable"),
        (key, b"\x01" + good[1:], b"undecodable"),
        (key, good.replace(b"user-", b"\xff\xffer-"), b"undecodable"),
        (key, framed(0x7FFFFFFF, good[5:]), b"undecodable"),
        (key, codec.encode(structs.replace(events[0], action=Action.UNKNOWN)), b"unknown-action"),
        (key, codec.encode(structs.replace(events[0], corp_id="another")), b"another-corp"),
        (b"poison", good, b"misplaced-key"),
        (None, good, b"misplaced-key"),
    ]
    produce(connection, events)
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for record_key, value, _ in poison:
        producer.produce(TASK_EVENTS.name, key=record_key, value=value, headers=[("ce_id", b"kept")])
    assert producer.flush(30) == 0
    streams_service.start()
    eventually(lambda: caught_up(connection), what="all events are processed")

    # By what they are: a chunk that is taken twice parks its records twice.
    parked: dict[Any, dict[str, Any]] = {}
    for each in read_topic(TASK_EVENTS_DLQ.name):
        said = dict(each.headers() or [])
        parked[each.key(), each.value(), said["dlq_reason"]] = said
    assert set(poison) <= set(parked)
    headers = [parked[each] for each in poison]
    assert {each["ce_id"] for each in headers} == {b"kept"}
    assert {each["dlq_topic"] for each in headers} == {TASK_EVENTS.name.encode()}

    listed = dlq(connection, "list", "--json")
    assert {"undecodable", "unknown-action", "another-corp", "misplaced-key"} <= {each["reason"] for each in listed}
    [letter] = [each for each in listed if f"id {later_id}," in str(each["detail"])][-1:]
    [shown] = dlq(connection, "show", letter["id"], "--json")
    assert shown["headers"]["ce_id"] == "kept"
    newer = json.loads(schema_text("TaskEvent"))
    newer["fields"].append({"name": "colour", "type": "string", "default": ""})
    assert connection.registry.register_schema(f"probe-{uuid.uuid4()}", Schema(json.dumps(newer), "AVRO")) == later_id
    assert [each["outcome"] for each in dlq(connection, "replay", letter["id"], "--json")] == ["replayed"]
    assert [each["outcome"] for each in dlq(connection, "replay", letter["id"], "--json")] == ["already-replayed"]
    eventually(lambda: caught_up(connection), what="the replayed record is processed")
    assert read_instance(connection, read_topic, key.decode()).title == "painted"


def read_instance(connection: Connection, read_topic: Callable[[str], list[Message]], key: str) -> TaskState:
    values = [each.value() for each in read_topic(TASK_STATES.name) if each.key() == key.encode()]
    return task_state_codec(connection.registry).decode(values[-1])


def fresh_schema() -> str:
    fields = [{"name": "x", "type": "string"}]
    return json.dumps({"type": "record", "name": f"Probe{uuid.uuid4().hex}", "fields": fields})


def dlq(connection: Connection, *arguments: str) -> list[dict[str, Any]]:
    """What ``taskbridge dlq`` prints as JSON."""
    where = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    result = CliRunner().invoke(app, ["dlq", *arguments, *where])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_what_was_deleted_long_ago_is_let_go_and_finished_ones_as_is_set(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    """The worker finds in its changelog what it would have after 31 days."""
    now_ms = time.time_ns() // 1_000_000
    aged_ms = now_ms - 31 * 24 * 60 * 60 * 1000
    states = task_state_codec(connection.registry)
    apply_topics(connection.admin(), [INSTANCES_CHANGELOG], partitions=12)
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    kept: dict[str, Instance] = {}
    for name, written_ms, until in (
        ("deleted", aged_ms, 7),
        ("finished", aged_ms, 5),
        ("live", aged_ms, 2),
        ("new", now_ms, 7),
    ):
        events = [structs.replace(each, instance_id=name) for each in sorted(lives(9, seed=4), key=by_moment)]
        history = [each for each in events if each.occurred_at <= 1_700_000_000_000 + until]
        kept[name] = reduce(fold, history[1:], fold(None, history[0]))
        stored = pack(states.encode(kept[name].state), kept[name], now_ms=written_ms)
        producer.produce(INSTANCES_CHANGELOG.name, key=name.encode(), value=stored)
    assert producer.flush(30) == 0
    assert kept["deleted"].state.lifecycle is Lifecycle.DELETED

    streams_service.environment = {**streams_service.environment, "STREAMS_RETENTION_DAYS": "30"}
    streams_service.start()

    def left() -> set[str]:
        found = {bytes(each.key() or b"").decode(): each.value() for each in read_topic(INSTANCES_CHANGELOG.name)}
        return {name for name in kept if found[name] is not None}

    eventually(lambda: left() == {"live", "new"}, what="two are let go")
    codec = task_notification_codec(connection.registry)
    told = [codec.decode(each.value()) for each in read_topic(TASK_NOTIFICATIONS.name)]
    removed = {
        (each.instance_id, each.recipient_id, each.view, each.task_id)
        for each in told
        if each.change is Change.REMOVED and each.instance_id in kept
    }
    assert removed == {("finished", line.user_id, line.view, line.task_id) for line in views(kept["finished"])}


def by_moment(event: TaskEvent) -> int:
    return event.occurred_at


def test_without_kafka_it_lives_is_not_ready_and_stops_when_told(streams_service: Any, eventually: Any) -> None:
    streams_service.environment = {
        **streams_service.environment,
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    }
    streams_service.start()
    eventually(lambda: streams_service.status("/healthz") == 200, what="the process answers")
    assert streams_service.status("/readyz") == 503
    assert streams_service.status("/metrics") == 200
    assert streams_service.status("/nonsense") == 404
    assert streams_service.stop() == 0
