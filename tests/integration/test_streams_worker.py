"""The streams service on real Kafka: what it parks, restores and lets go. Kills: test_workers.py."""

from __future__ import annotations

import json
import random
import time
import uuid
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from msgspec import structs
from typer.testing import CliRunner

from support.kafka.records import produce_foreign
from support.streams.lives import assert_all_is_right, caught_up, lives, produce
from taskbridge.cli.program import app
from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.cloudevents import headers_of
from taskbridge.schemas.codec import framed, task_event_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.dead_letters import REASON_HEADER, TOPIC_HEADER
from taskbridge.schemas.events import Action, Change, Lifecycle, TaskState
from taskbridge.schemas.registry import schema_text
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, TASK_EVENTS, TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.schemas.views import views
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import pack
from taskbridge.streams.table_versions import FIRST_VERSION, instances_changelog
from taskbridge.streams.tables.store import OFFSET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.streams.fold.instance import Instance

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("as_if_nothing_ran")]


def test_poison_records_are_parked_and_replayed_after_the_fix(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    codec = task_event_codec(connection.registry)
    events = lives(1, seed=3)
    key = events[0].instance_id.encode()
    good = codec.encode(events[0])
    # Of a schema that the registry will only have later, and not as its next one: other tests use it too.
    later_id = 20 + connection.registry.client.register(f"probe-{uuid.uuid4()}", fresh_schema())
    late = {"occurred_at": 1_800_000_000_000, "received_at": 1_800_000_000_000}
    painted = structs.replace(events[0], event_id=str(uuid.uuid4()), title="painted", **late)
    newer_action = json.loads(schema_text("TaskEvent").replace('"COPIED"', '"COPIED", "RECALLED"'))
    newer_id = connection.registry.client.register(f"probe-{uuid.uuid4()}", json.dumps(newer_action))
    state = TaskState(instance_id=key.decode(), corp_id="corp", app_type="APP", updated_at=1, revision=1)
    poison: list[tuple[bytes | None, bytes | None, bytes]] = [
        (key, framed(later_id, codec.encode_body(painted) + b"\x06red"), b"undecodable"),
        (key, None, b"undecodable"),
        (key, b"", b"undecodable"),
        (key, b"junk", b"undecodable"),
        (key, good[:40], b"undecodable"),
        (key, b"\x01" + good[1:], b"undecodable"),
        (key, good.replace(b"user-", b"\xff\xffer-"), b"undecodable"),
        (key, framed(0x7FFFFFFF, good[5:]), b"undecodable"),
        (key, task_state_codec(connection.registry).encode(state), b"undecodable"),
        (key, codec.encode(structs.replace(events[0], action=Action.UNKNOWN)), b"unknown-action"),
        (key, framed(newer_id, recalled(codec.encode_body(events[0]))), b"unknown-action"),
        (key, codec.encode(structs.replace(events[0], occurred_at=1 << 60)), b"outside-contract"),
        (key, codec.encode(structs.replace(events[0], created_at=-(1 << 60))), b"outside-contract"),
        *foreign(codec, events[0], instance_id=OFFSET_KEY.decode()),
        *foreign(codec, events[0], instance_id=""),
        *foreign(codec, events[0], instance_id="x" * 129),
        (
            key,
            codec.encode(
                structs.replace(painted, event_id="long", title="t" * (3 << 19), occurred_at=1_800_000_000_001)
            ),
            b"too-large",
        ),
        (key, codec.encode(structs.replace(events[0], corp_id="another")), b"another-corp"),
        (b"poison", good, b"misplaced-key"),
        (None, good, b"misplaced-key"),
    ]
    produce(connection, events)
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for record_key, value, _ in poison:
        producer.produce(TASK_EVENTS.name, key=record_key, value=value, headers=[("ce_id", b"stored"), ("empty", None)])
    assert producer.flush(30) == 0
    streams_service.start()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(streams_service.is_ready, what="the worker is ready")

    # By content: a chunk that is processed twice parks its records twice.
    parked: dict[Any, dict[str, Any]] = {}
    for each in read_topic(TASK_EVENTS_DLQ.name):
        named = dict(headers_of(each))
        parked[each.key(), each.value(), named.get(REASON_HEADER)] = named
    assert set(poison) <= set(parked)
    headers = [parked[each] for each in poison]
    assert {each["ce_id"] for each in headers} == {b"stored"}
    assert {each[TOPIC_HEADER] for each in headers} == {TASK_EVENTS.name.encode()}

    listed = dlq(connection, "list", "--json")
    assert {"undecodable", "unknown-action", "another-corp", "misplaced-key"} <= {each["reason"] for each in listed}
    [letter] = [each for each in listed if f"id {later_id}," in str(each["detail"])][-1:]
    [shown] = dlq(connection, "show", letter["id"], "--json")
    assert shown["headers"]["ce_id"] == "stored"
    newer = json.loads(schema_text("TaskEvent"))
    newer["fields"].append({"name": "colour", "type": "string", "default": ""})
    newer["doc"] = str(uuid.uuid4())
    while connection.registry.client.register(f"probe-{uuid.uuid4()}", fresh_schema()) < later_id - 1:
        pass
    assert connection.registry.client.register(f"probe-{uuid.uuid4()}", json.dumps(newer)) == later_id
    assert [each["outcome"] for each in dlq(connection, "replay", letter["id"], "--json")] == ["replayed"]
    assert [each["outcome"] for each in dlq(connection, "replay", letter["id"], "--json")] == ["already-replayed"]
    replayed = {each["id"]: each["replayed_at"] for each in dlq(connection, "list", "--json")}
    assert replayed[letter["id"]] is not None
    assert None in replayed.values()
    eventually(lambda: caught_up(connection), what="the replayed record is processed")
    assert read_instance(connection, read_topic, key.decode()).title == "painted"

    # A record that was not fixed is parked again; the stream goes on, and all else is unchanged.
    assert {each["outcome"] for each in dlq(connection, "replay", "--all", "--json")} == {
        "replayed",
        "already-replayed",
    }
    produce(connection, lives(1, seed=5))
    eventually(lambda: caught_up(connection), what="the replayed records are processed")
    assert len(dlq(connection, "list", "--json")) >= 2 * len(poison) - 1
    assert_all_is_right(connection, read_topic)


def test_header_names_that_are_not_utf_8_do_no_harm(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    codec = task_event_codec(connection.registry)
    foreign = [(b"\xff\xfe", b"1"), (b"ce_id", b"2"), (b"\xe5\xbc", b"3")]
    for number, packed in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        events = [(each.instance_id.encode(), codec.encode(each), foreign) for each in lives(3, seed=40 + number)]
        produce_foreign(connection, TASK_EVENTS.name, [*events, (b"foreign", packed.encode(), foreign)], codec=packed)
    people = [each.name for each in topics.ALL if each not in (TASK_STATES, TASK_NOTIFICATIONS, TASK_EVENTS)]
    for topic in people:
        produce_foreign(connection, topic, [(b"foreign", b"put there", foreign)])
    streams_service.start()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(streams_service.is_ready, what="the worker is ready")
    assert_all_is_right(connection, read_topic)

    parked = [each for each in read_topic(TASK_EVENTS_DLQ.name) if each.key() == b"foreign"]
    assert {each.value() for each in parked} == {b"none", b"gzip", b"snappy", b"lz4", b"zstd", b"put there"}
    read = {("\ufffd\ufffd", b"1"), ("ce_id", b"2"), ("\ufffd", b"3"), (REASON_HEADER, b"undecodable")}
    assert all(read <= {*headers_of(each)} for each in parked if each.value() != b"put there")
    reasons = [each["reason"] for each in dlq(connection, "list", "--json") if each["key"] == "foreign"]
    assert sorted(reasons, key=str) == [None, *["undecodable"] * 5]
    assert [headers_of(each) for each in parked if each.value() == b"put there"] == [
        [("\ufffd", b"1"), ("ce_id", b"2"), ("\ufffd", b"3")]
    ]
    mine = [each["id"] for each in dlq(connection, "list", "--json") if each["key"] == "foreign" and each["reason"]]
    assert {each["outcome"] for each in dlq(connection, "replay", *mine, "--json")} == {"replayed"}
    where = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    for topic in (TASK_EVENTS.name, *people):
        result = CliRunner().invoke(app, ["tail", topic, "--from-beginning", "--max", "1", *where])
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["quarantine", "list", "--json", *where])
    assert result.exit_code == 0, result.output
    eventually(lambda: caught_up(connection), what="the replayed records are processed")
    assert streams_service.stop() == 0


def test_an_instance_and_a_dead_letter_that_are_too_large_do_not_stop_the_worker(
    connection: Connection, streams_service: Any, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    codec = task_event_codec(connection.registry)
    chance = random.Random(17)

    def created(event_id: str, people: tuple[str, ...], *, at: int) -> TaskEvent:
        event = min(lives(1, seed=18), key=lambda each: each.occurred_at)
        return structs.replace(
            event, event_id=event_id, instance_id="grows", task_id="T-1", recipient_ids=people, occurred_at=at
        )

    # People with very long names, so that few of them are enough.
    first, second = ([chance.randbytes(50_000).hex() for _ in range(25)] for _ in range(2))
    junk = chance.randbytes(MAX_MESSAGE_BYTES - 500)
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for event in (created("1", tuple(first), at=1), created("2", tuple(second), at=2), created("3", ("ann",), at=3)):
        producer.produce(TASK_EVENTS.name, key=b"grows", value=codec.encode(event))
        producer.flush(30)
    # It has no notifications, and its corp takes three times its bytes when escaped in the headers of its state.
    corp_id = "".join(map(chr, chance.choices(range(0x4E00, 0x9FFF), k=MAX_MESSAGE_BYTES // 4)))
    wide = structs.replace(created("4", (), at=4), instance_id="wide", originator=None, corp_id=corp_id)
    producer.produce(TASK_EVENTS.name, key=b"wide", value=codec.encode(wide))
    producer.produce(TASK_EVENTS.name, key=b"grows", value=junk)
    assert producer.flush(30) == 0
    streams_service.start()
    eventually(lambda: caught_up(connection), what="all events are processed")
    eventually(streams_service.is_ready, what="the worker is ready")

    parked = dlq(connection, "list", "--json")
    assert [each["reason"] for each in parked if each["key"] == "wide"] == ["too-large"]
    mine = [each for each in parked if each["key"] == "grows"]
    reasons = [each["reason"] for each in mine]
    assert reasons[-1] == "undecodable"
    # Whether they came in one chunk or in three: one of the two is too much, and nothing else is set aside for it.
    assert reasons[:-1] == ["too-large"]
    [shown] = dlq(connection, "show", mine[-1]["id"], "--json")
    assert len(str(shown["value"])) > MAX_MESSAGE_BYTES // 2, "it is read from where it was left"
    done = dlq(connection, "replay", mine[-1]["id"], "--json")
    assert [each["outcome"] for each in done] == ["replayed"]
    eventually(lambda: caught_up(connection), what="the replayed record is processed")
    again = [each for each in dlq(connection, "list", "--json") if each["key"] == "grows"]
    assert [each["reason"] for each in again[len(mine) :]] == ["undecodable"]

    assert len(read_instance(connection, read_topic, "grows").tasks[0].assignee_ids) == 26


def recalled(body: bytes) -> bytes:
    """An event's body with an action that only a newer schema has."""
    # event_id and source, each after its length in one byte, come before the action.
    action_at = 1 + (body[0] >> 1)
    action_at += 1 + (body[action_at] >> 1)
    symbols = next(each for each in json.loads(schema_text("TaskEvent"))["fields"] if each["name"] == "action")
    return body[:action_at] + bytes([2 * len(symbols["type"]["symbols"])]) + body[action_at + 1 :]


def foreign(codec: Any, event: TaskEvent, *, instance_id: str) -> list[tuple[bytes | None, bytes | None, bytes]]:
    """A record under a key that the edge lets no instance have."""
    changed = structs.replace(event, instance_id=instance_id)
    return [(instance_id.encode(), codec.encode(changed), b"outside-contract")]


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
    changelog = instances_changelog(FIRST_VERSION)
    apply_topics(connection.admin(), [changelog], partitions=12)
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    instances: dict[str, Instance] = {}
    for name, written_ms, until in (
        ("deleted", aged_ms, 7),
        ("finished", aged_ms, 5),
        ("live", aged_ms, 2),
        ("new", now_ms, 7),
    ):
        events = [
            structs.replace(each, instance_id=name)
            for each in sorted(lives(9, seed=4), key=lambda each: each.occurred_at)
        ]
        history = [each for each in events if each.occurred_at <= 1_700_000_000_000 + until]
        instances[name] = reduce(fold, history[1:], fold(None, history[0]))
        stored = pack(states.encode(instances[name].state), instances[name], now_ms=written_ms)
        producer.produce(changelog.name, key=name.encode(), value=stored)
    assert producer.flush(30) == 0
    assert instances["deleted"].state.lifecycle is Lifecycle.DELETED

    streams_service.environment = {**streams_service.environment, "STREAMS_RETENTION_DAYS": "30"}
    streams_service.start()

    def left() -> set[str]:
        found = {bytes(each.key() or b"").decode(): each.value() for each in read_topic(changelog.name)}
        return {name for name in instances if found[name] is not None}

    eventually(lambda: left() == {"live", "new"}, what="two are let go")
    codec = task_notification_codec(connection.registry)
    published = [codec.decode(each.value()) for each in read_topic(TASK_NOTIFICATIONS.name)]
    removed = {
        (each.instance_id, each.recipient_id, each.view, each.task_id)
        for each in published
        if each.change is Change.REMOVED and each.instance_id in instances
    }
    assert removed == {
        ("finished", line.user_id, line.view, line.task_id) for line in views(instances["finished"].state)
    }


def test_without_kafka_it_lives_is_not_ready_and_stops_on_a_signal(streams_service: Any, eventually: Any) -> None:
    streams_service.environment = {
        **streams_service.environment,
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    }
    streams_service.start()
    eventually(lambda: streams_service.get("/healthz"), what="the process answers")
    statuses = {
        path: streams_service.get(path).status_code for path in ("/healthz", "/readyz", "/metrics", "/nonsense")
    }
    assert statuses == {"/healthz": 200, "/readyz": 503, "/metrics": 200, "/nonsense": 404}
    assert streams_service.stop() == 0
