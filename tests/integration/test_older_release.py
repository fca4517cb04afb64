"""What an older release leaves on Kafka: workers that also have inboxes are waited for, and their topic is deleted."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import NewTopic

from support.edge.process import wait_until
from support.forked import taskbridge
from support.streams.lives import delete_all_topics, topics_on
from support.streams.processes import Worker
from taskbridge.runtime.kafka import consumer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.table_versions import UNUSED_TOPICS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.cli.connection import Connection

pytestmark = [pytest.mark.integration, pytest.mark.disasters]

[INBOX] = UNUSED_TOPICS


@pytest.fixture
def kafka(own_kafka: Connection) -> Connection:
    """With the notifications and the inbox's changelog."""
    delete_all_topics(own_kafka)
    admin = own_kafka.admin()
    apply_topics(admin, topics.ALL, partitions=2)
    cast("dict[str, Any]", admin.create_topics([NewTopic(INBOX, 2, 1)]))[INBOX].result(30)
    return own_kafka


@contextmanager
def older_worker(connection: Connection) -> Generator[None]:
    """A member of the group with partitions of both topics, until the end of the block."""
    config: dict[str, Any] = {
        **consumer_config(connection.bootstrap_servers, APP_ID),
        "group.instance.id": "older",
        "session.timeout.ms": 6000,
    }
    consumer, over, assigned = Consumer(config), threading.Event(), threading.Event()

    def note(_consumer: object, _partitions: object) -> None:
        assigned.set()

    consumer.subscribe([TASK_NOTIFICATIONS.name, INBOX], on_assign=note)

    def poll() -> None:
        while not over.is_set():
            consumer.poll(0.1)
        consumer.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert assigned.wait(60)
        yield
    finally:
        over.set()
        thread.join()


def apply(connection: Connection, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    where = ("--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url)
    found = taskbridge("topics", "apply", "--json", *arguments, *where)
    return found.returncode, [json.loads(line) for line in found.stdout.splitlines()], found.stderr


def test_topics_of_older_releases_are_listed_and_deleted_on_request_once_nobody_reads_them(kafka: Connection) -> None:
    """Its exit code is about other topics, which differ from the contract on this broker."""

    def deleted() -> bool:
        _, lines, _ = apply(kafka, "--delete-unused")
        return {"topic": INBOX, "state": "deleted"} in lines

    assert apply(kafka)[1][-1] == {"topic": INBOX, "state": "unused"}
    assert INBOX in topics_on(kafka), "never without the option"
    with older_worker(kafka):
        code, lines, errors = apply(kafka, "--delete-unused")
        assert (code, lines) == (1, [])
        assert f"{INBOX} is used by workers of an earlier release: older. Stop them first" in errors
    wait_until(deleted, what="its session is over")
    wait_until(lambda: INBOX not in topics_on(kafka), what="it is gone")
    assert INBOX not in {each["topic"] for each in apply(kafka, "--delete-unused")[1]}


# The upgrade in tests/chaos shows it in every run.
@pytest.mark.nightly
def test_a_worker_waits_for_the_end_of_workers_of_an_older_release(kafka: Connection, tmp_path: Path) -> None:
    with Worker(tmp_path, kafka) as worker:
        with older_worker(kafka):
            worker.start()
            problem = "workers of an older release are running: older. Stop them; this worker starts then"
            wait_until(lambda: worker.readiness().get("problems") == [problem], what="it says what it waits for")
        wait_until(worker.is_ready, what="the worker is ready")
