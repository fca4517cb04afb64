"""The inbox table on real Kafka: rebuilt from its topic it is the same; an unreadable record does no harm."""

from __future__ import annotations

import os
import random
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec import structs

from support import http_clients
from support.streams.api_context import faust_app
from support.streams.lives import SENT_DIRECTLY, inboxes_by_notifications, lives, produce
from support.streams.processes import Worker
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.cloudevents import headers_of
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.dead_letters import REASON_HEADER, TOPIC_HEADER
from taskbridge.schemas.events import Change, Person, Status, TaskNotification, View, notification_key
from taskbridge.schemas.topics import TASK_EVENTS_DLQ, TASK_NOTIFICATIONS
from taskbridge.streams.inbox import layout
from taskbridge.streams.table_versions import INBOX_CHANGELOG
from taskbridge.streams.tables.store import inbox_table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("as_if_nothing_ran")]

USERS = int(os.environ.get("TASKBRIDGE_INBOX_USERS", "150"))
TASKS = int(os.environ.get("TASKBRIDGE_INBOX_TASKS", "20"))
"""The full proof is 10,000 users of 200 tasks, which needs some minutes: set these for it."""


@pytest.fixture
def worker(connection: Connection, tmp_path: Path) -> Generator[Worker]:
    worker = Worker(tmp_path, connection)
    yield worker
    worker.kill_if_running()


def notifications_of(chance: random.Random, corp: str, user: str, number: int) -> Iterable[TaskNotification]:
    """What one task means for one person: it comes, mostly changes, and sometimes goes."""

    def notification(view: View, change: Change, at: int) -> TaskNotification:
        return TaskNotification(
            notification_id=f"{chance.getrandbits(64):x}",
            corp_id=corp,
            recipient_id=user,
            view=view,
            change=change,
            instance_id=f"I-{user}-{number}",
            task_id="T-1",
            title=f"请假 {number}",
            url=None,
            app_type="APP",
            originator=Person("ann", "Ann"),
            actor_id=None,
            status=Status.PENDING,
            occurred_at=1_700_000_000_000 + number * 1000 + at,
            event_id="e",
            process_name="Leave",
        )

    yield notification(View.PENDING, Change.ADDED, 0)
    if chance.random() < 0.7:
        yield notification(View.PENDING, Change.REMOVED, 1)
        yield notification(View.HANDLED, Change.ADDED, 1)
        if chance.random() < 0.3:
            yield notification(View.HANDLED, Change.UPDATED, 2)


def produce_notifications(connection: Connection, corp: str, *, users: int, tasks: int, seed: int) -> None:
    chance = random.Random(seed)
    config: dict[str, Any] = producer_config(connection.bootstrap_servers) | {"queue.buffering.max.messages": 1_000_000}
    producer = Producer(config)
    codec = task_notification_codec(connection.registry)
    for number in range(tasks):
        for user in range(users):
            for each in notifications_of(chance, corp, f"user-{user}", number):
                key = notification_key(each.corp_id, each.recipient_id)
                producer.produce(TASK_NOTIFICATIONS.name, key=key, value=codec.encode(each))
        producer.poll(0)
    assert producer.flush(120) == 0


def is_up_to_date(worker: Worker) -> bool:
    """It has read all that is on the topic, by the topic's own ends."""
    found = worker.readiness()
    return found.get("ready", False) and found["lag"]["notifications"] == 0


def committed_to_the_end(connection: Connection) -> bool:
    """The group is behind the last notification of each partition, whose end may be that of a transaction."""
    consumer = Consumer({"bootstrap.servers": connection.bootstrap_servers, "group.id": "taskbridge-streams"})
    try:
        partitions = [TopicPartition(TASK_NOTIFICATIONS.name, number) for number in range(12)]
        positions = consumer.committed(partitions, timeout=10)
        return all(at.offset >= (end := consumer.get_watermark_offsets(at)[1]) - 1 or end == 0 for at in positions)
    finally:
        consumer.close()


def in_stores(folder: Path) -> dict[bytes, bytes]:
    """What a worker that has stopped has on its disk."""
    store, _ = inbox_table(faust_app(folder, partitions=12), partitions=12)
    found: dict[bytes, bytes] = {}
    for number in range(12):
        store.hold(number)
        stored, _ = store.scan(number, b"", limit=1 << 30)
        found.update((key, value) for key, value in stored if key != layout.APPLIED_KEY)
        store.release(number)
    return found


def test_the_inbox_rebuilt_from_its_topic_and_from_its_changelog_equals_the_live_one(
    connection: Connection,
    worker: Worker,
    tmp_path: Path,
    read_topic: Callable[[str], list[Message]],
    eventually: Any,
) -> None:
    corp = f"{SENT_DIRECTLY}{random.random()}"
    worker.start()
    eventually(worker.is_ready, what="the worker is ready")
    produce_notifications(connection, corp, users=USERS, tasks=TASKS, seed=3)
    wait_s = 120 + USERS * TASKS // 2_000
    eventually(partial(committed_to_the_end, connection), within_s=wait_s, what="the inboxes are up to date")
    eventually(partial(is_up_to_date, worker), what="it is up to date")
    assert worker.end(signal.SIGTERM) == 0
    folder = tmp_path / f"worker-{worker.port}"
    live, expected = in_stores(folder), inboxes_by_notifications(connection, read_topic)
    assert live == expected
    user = layout.user_part(corp, "user-0")
    assert sum(layout.read_counts(live[layout.counts_key(user)])) == TASKS
    # The same worker with an empty disk.
    shutil.rmtree(folder)
    worker.start()
    eventually(partial(is_up_to_date, worker), within_s=wait_s, what="it is restored")
    assert worker.end(signal.SIGTERM) == 0
    assert in_stores(folder) == expected


def test_a_notification_that_cannot_be_read_is_parked_and_the_inbox_goes_on(
    connection: Connection, worker: Worker, read_topic: Callable[[str], list[Message]], eventually: Any
) -> None:
    corp = f"{SENT_DIRECTLY}{random.random()}"
    key = notification_key(corp, "user-0")
    codec = task_notification_codec(connection.registry)
    good = next(iter(notifications_of(random.Random(1), corp, "user-0", 1)))
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for poisoned_key, value in (
        (key, b"not avro"),
        (key, None),
        (f"{SENT_DIRECTLY}another/key".encode(), codec.encode(good)),
        (key, codec.encode(structs.replace(good, occurred_at=1 << 60))),
        (key, codec.encode(good)),
    ):
        producer.produce(TASK_NOTIFICATIONS.name, key=poisoned_key, value=value, headers=[("mark", corp.encode())])
    producer.flush()
    worker.start()
    eventually(worker.is_ready, what="the worker is ready")
    url = f"http://127.0.0.1:{worker.port}/v1/corps/{corp}/users/user-0/counts"

    def pending() -> int:
        answer = http_clients.get(url, timeout=5)
        return answer.json().get("pending", 0) if answer.status_code == 200 else 0

    eventually(lambda: pending() == 1, what="the good one is in the inbox")
    letters: list[dict[str, Any]] = []

    def parked() -> bool:
        headers = [dict(headers_of(message)) for message in read_topic(TASK_EVENTS_DLQ.name)]
        letters[:] = [each for each in headers if each.get("mark") == corp.encode()]
        return len(letters) == 4

    eventually(parked, what="the others are parked")
    assert {each[TOPIC_HEADER] for each in letters} == {TASK_NOTIFICATIONS.name.encode()}
    assert sorted(each[REASON_HEADER] or b"" for each in letters) == [
        b"misplaced-notification",
        b"outside-contract",
        b"undecodable",
        b"undecodable",
    ]
    assert worker.end(signal.SIGTERM) == 0


def test_a_group_without_a_task_center_stores_no_inboxes_and_answers_no_queries(
    connection: Connection, tmp_path: Path, eventually: Any, read_topic: Callable[[str], list[Message]]
) -> None:
    worker = Worker(tmp_path, connection, STREAMS_TASK_CENTER="false")
    before = len(read_topic(INBOX_CHANGELOG.name)) if _exists(connection, INBOX_CHANGELOG.name) else 0
    try:
        worker.start()
        eventually(worker.is_ready, what="the worker is ready")
        produce(connection, lives(5, seed=31))
        eventually(lambda: worker.metrics().get("taskbridge_streams_folds_total", 0) >= 30, what="events are folded")
        assert httpx2.get(f"http://127.0.0.1:{worker.port}/v1/me", trust_env=False).status_code == 404
        after = len(read_topic(INBOX_CHANGELOG.name)) if _exists(connection, INBOX_CHANGELOG.name) else 0
        assert after == before
        assert worker.end(signal.SIGTERM) == 0
    finally:
        worker.kill_if_running()


def _exists(connection: Connection, topic: str) -> bool:
    return topic in connection.admin().list_topics(timeout=10).topics
