"""What our producers write is read by a client that unpacks nothing but gzip: kafkajs, as it comes from npm."""

from __future__ import annotations

import base64
import json
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition

from support import toolchains
from support.streams.processes import ends_of
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import Change, Status, TaskNotification, View, notification_key
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.engine.joint_producer import JointProducer

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

COUNT = 40


@pytest.fixture(scope="session")
def kafkajs() -> Path:
    return toolchains.npm_installed("kafkajs") / "consume.js"


def group_at_the_end(connection: Connection, topic: str) -> str:
    """A new group that reads what comes from now on: records before may be packed in ways that kafkajs cannot read."""
    group = f"kafkajs-{uuid.uuid4()}"
    positions = [TopicPartition(topic, *each) for each in ends_of(connection, topic).items()]
    consumer = Consumer({"bootstrap.servers": connection.bootstrap_servers, "group.id": group})
    consumer.commit(offsets=positions, asynchronous=False)
    consumer.close()
    return group


def consume(kafkajs: Path, connection: Connection, group: str, key: str, topic: str) -> list[dict[str, str]]:
    arguments = [connection.bootstrap_servers, group, str(COUNT), key, topic]
    return [json.loads(line) for line in toolchains.run_node(kafkajs, *arguments).splitlines()]


def test_kafkajs_reads_notifications_of_the_streams(kafkajs: Path, connection: Connection) -> None:
    group = group_at_the_end(connection, TASK_NOTIFICATIONS.name)
    corp_id = f"kafkajs-{uuid.uuid4()}"
    notification = TaskNotification(
        notification_id=str(uuid.uuid4()),
        corp_id=corp_id,
        recipient_id="u-1",
        view=View.PENDING,
        change=Change.ADDED,
        instance_id=corp_id,
        task_id="t-1",
        title="访客申请",
        url=None,
        app_type="APP_1",
        originator=None,
        actor_id=None,
        status=Status.PENDING,
        occurred_at=1,
        event_id=str(uuid.uuid4()),
    )
    value = task_notification_codec(connection.registry).encode(notification)
    key = notification_key(corp_id, "u-1")
    with closing(JointProducer(producer_config(connection.bootstrap_servers), corp_id)) as producer:
        producer.claim()
        with producer.transaction():
            producer.send(TASK_NOTIFICATIONS.name, [(key, value, []) for _ in range(COUNT)])
    found = consume(kafkajs, connection, group, key.decode(), TASK_NOTIFICATIONS.name)
    assert {base64.b64decode(each["value"]) for each in found} == {value}
