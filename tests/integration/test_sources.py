"""Another system's message through the real edge: to Kafka, to the disk without Kafka, to quarantine when refused."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from support.approvals import approvals_to, task_event, until
from support.edge.callbacks import message
from support.edge.fakes import CORP_ID, SOURCE, message_of
from support.edge.process import RunningEdge, wait_until
from taskbridge.local.host import free_port
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
