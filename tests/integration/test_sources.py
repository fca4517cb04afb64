"""Another system's message through the real edge: to Kafka, to the disk without Kafka, to quarantine when refused."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from support.approvals import approvals_to, task_event, until
from support.edge.callbacks import message
from support.edge.fakes import CORP_ID, SOURCE, SOURCE_SECRET, SYSTEM_TOKEN, message_of, write_credentials
from support.edge.process import RunningEdge, wait_until
from support.forked import taskbridge
from support.kafka.records import quarantined
from taskbridge.local.host import free_port
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.schemas.cloudevents import headers_of
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.events import Action
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    import httpx2
    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.edge.sender import EncodedCallback
    from taskbridge.schemas.events import TaskEvent

    Events = Callable[[str], list[tuple[TaskEvent, dict[str, bytes]]]]

pytestmark = pytest.mark.integration


class Edge(RunningEdge):
    def send(self, sent: EncodedCallback, wire_action: str = "create") -> httpx2.Response:
        return self.post(f"/sources/{SOURCE}/tasks/{wire_action}", sent)

    def restart(self, bootstrap_servers: str) -> None:
        self.stop()
        self.environment["EDGE_KAFKA_BOOTSTRAP_SERVERS"] = bootstrap_servers
        self.start()
        wait_until(self.is_whole)


@pytest.fixture
def make_edge(tmp_path: Path, connection: Connection) -> Generator[Callable[..., Edge]]:
    made: list[Edge] = []

    def make(bootstrap_servers: str = connection.bootstrap_servers) -> Edge:
        # These tests are not about a slow Kafka, and the machine may be busy.
        patience = (
            {} if made or bootstrap_servers != connection.bootstrap_servers else {"EDGE_KAFKA_TIMEOUT_MS": "20000"}
        )
        edge = Edge(tmp_path, bootstrap_servers=bootstrap_servers, registry_url=connection.registry_url, **patience)
        made.append(edge)
        edge.start()
        return edge

    yield make
    for edge in made:
        edge.kill_if_running()


@pytest.fixture
def instance_id() -> str:
    return f"I-{uuid.uuid4()}"


@pytest.fixture
def events_of(read_topic: Callable[[str], list[Message]], connection: Connection) -> Events:
    """The events of one of the source's instances, each with its headers."""
    codec = task_event_codec(connection.registry)

    def found(instance_id: str) -> list[tuple[TaskEvent, dict[str, bytes]]]:
        key = f"{SOURCE}:{instance_id}".encode()
        return [
            (codec.decode(each.value()), dict(headers_of(each)))
            for each in read_topic(TASK_EVENTS.name)
            if each.key() == key
        ]

    return found


def signed_message(instance_id: str, **signing: Any) -> EncodedCallback:
    return message("create", message_of("create", instance_id=instance_id), message_id=f"msg_{instance_id}", **signing)


@pytest.mark.parametrize("binary", [False, True], ids=["structured", "binary"])
def test_a_message_lands_as_an_event_of_its_system(
    make_edge: Callable[..., Edge], instance_id: str, events_of: Events, *, binary: bool
) -> None:
    edge = make_edge()
    wait_until(edge.is_whole)
    answer = edge.send(signed_message(instance_id, binary=binary))
    assert (answer.status_code, answer.json()["durability"]) == (200, "kafka")
    ((event, headers),) = events_of(instance_id)
    assert (event.event_id, event.source, event.app_type) == (answer.json()["eventId"], SOURCE, "leave")
    assert headers["ce_source"] == f"/{SOURCE}/{CORP_ID}/leave".encode()
    assert headers["ce_subject"] == f"{SOURCE}:{instance_id}".encode()
    assert headers["ce_type"] == b"taskbridge.task.created.v1"


def test_while_kafka_is_away_a_message_is_on_the_disk_and_delivered_later(
    make_edge: Callable[..., Edge], connection: Connection, instance_id: str, events_of: Events
) -> None:
    edge = make_edge(f"127.0.0.1:{free_port()}")
    wait_until(edge.is_ready)
    answer = edge.send(signed_message(instance_id))
    assert (answer.status_code, answer.json()["durability"]) == (200, "spool")
    edge.restart(connection.bootstrap_servers)
    wait_until(edge.has_drained)
    assert [event.event_id for event, _ in events_of(instance_id)] == [answer.json()["eventId"]]


def test_refused_messages_are_replayed_once_the_secret_is_fixed_though_they_are_too_old(
    *,
    make_edge: Callable[..., Edge],
    connection: Connection,
    instance_id: str,
    events_of: Events,
    read_topic: Callable[[str], list[Message]],
    eventually: Any,
) -> None:
    edge = make_edge()
    write_credentials(edge.credentials, SYSTEM_TOKEN, secrets=(new_secret(),))
    edge.restart(connection.bootstrap_servers)
    assert edge.send(signed_message(instance_id)).status_code == 401
    assert edge.send(signed_message(f"{instance_id}-forged", secret=new_secret())).status_code == 401

    def quarantined_ids() -> list[str]:
        mine = [each for each in quarantined(connection, read_topic) if instance_id.encode() in each.body]
        assert {each.reason for each in mine} <= {"wrong-sign"}
        return [each.quarantine_id for each in sorted(mine, key=lambda each: each.received_at)]

    ids = eventually(lambda: len(found := quarantined_ids()) == 2 and found, what="both are in quarantine")
    write_credentials(edge.credentials, SYSTEM_TOKEN, secrets=(new_secret(), SOURCE_SECRET))

    flags = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    flags += ["--credentials", str(edge.credentials), "--data-dir", str(edge.data_dir)]

    def replay() -> list[tuple[str, str | None]]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
        done = taskbridge("quarantine", "replay", *ids, *flags, "--json", environment=inherited)
        return [(each["outcome"], each["reason"]) for each in map(json.loads, done.stdout.splitlines())]

    assert replay() == [("released", None), ("rejected", "wrong-sign")]
    assert replay() == [("already-published", None), ("rejected", "wrong-sign")]
    ((event, _),) = events_of(instance_id)
    # The running edge knows what was released: the message may come again, and no other in its place.
    wait_until(lambda: edge.send(signed_message(f"{instance_id}-2")).is_success, what="the fixed secret is in force")
    again = edge.send(
        message("cancel", message_of("cancel", instance_id=instance_id), message_id=f"msg_{instance_id}"), "cancel"
    )
    assert again.status_code == 401
    assert time.time() * 1000 > event.received_at


def test_dingtalks_approvals_are_acknowledged_once_they_are_durable_and_arrive_once(
    make_edge: Callable[..., Edge], connection: Connection, instance_id: str, events_of: Events
) -> None:
    """Without Kafka they are on the edge's disk; without the edge they are sent again, and so is one whose
    acknowledgement was lost."""
    edge = make_edge(f"127.0.0.1:{free_port()}")
    wait_until(edge.is_ready)
    start = task_event("start", processInstanceId=instance_id)
    finish = task_event("finish", processInstanceId=instance_id, result="agree")

    async def scenario() -> None:
        async with approvals_to(edge.url) as found:
            await found.gateway.push(*start, event_id="start")
            await until(lambda: found.statuses == ["SUCCESS"])
            await asyncio.to_thread(edge.stop)
            await found.gateway.push(*finish)
            await until(lambda: found.statuses == ["SUCCESS", "LATER"])
            await asyncio.to_thread(edge.restart, connection.bootstrap_servers)
            await found.gateway.push(*start, event_id="start")
            await found.gateway.send_again()
            await until(lambda: not found.gateway.unacknowledged)

    asyncio.run(scenario())
    wait_until(edge.has_drained)
    found = {event.event_id: event.action for event, _ in events_of(instance_id)}
    assert sorted(found.values()) == [Action.COMPLETED, Action.CREATED]
