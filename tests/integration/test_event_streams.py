"""Live updates over HTTP: nothing missed, nothing twice, however connections break and whichever replica answers."""

from __future__ import annotations

import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from support import http_clients
from support.center_process import CenterProcess
from support.event_streams_replica import EventStreamsReplica
from support.http_clients import EventStreamClient
from support.live import set_epoch
from support.streams.lives import lives, produce

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from support.center import Databases
    from taskbridge.cli.connection import Connection

    Stream = Callable[..., EventStreamClient]
    Start = Callable[..., EventStreamsReplica]

pytestmark = pytest.mark.integration


@pytest.fixture
def start(databases: Databases, dialect: str) -> Generator[Start]:
    """Starts replicas on one database; SQLite has one."""
    url = databases.new_url(dialect)
    set_epoch(databases.open(url))
    replicas: list[EventStreamsReplica] = []

    def start(**more: Any) -> EventStreamsReplica:
        replicas.append(EventStreamsReplica(databases.open(url), **more))
        return replicas[-1].start()

    yield start
    for each in replicas:
        each.stop()


@pytest.fixture
def stream_of() -> Generator[Stream]:
    clients: list[EventStreamClient] = []

    def listen(replica: EventStreamsReplica | CenterProcess, user_id: str, **more: Any) -> EventStreamClient:
        clients.append(EventStreamClient(events_url(replica, user_id), **more))
        return clients[-1]

    yield listen
    for each in clients:
        each.cut()


def events_url(replica: EventStreamsReplica | CenterProcess, user_id: str, corp_id: str = "corp") -> str:
    return f"{replica.url}/v1/corps/{corp_id}/users/{user_id}/events"


def person() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def ids(client: EventStreamClient) -> list[str]:
    return [each["notification_id"] for each in client.events]


def wait_for_place(client: EventStreamClient) -> None:
    deadline = time.monotonic() + 60
    while client.last_event_id is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_connection_that_breaks_all_the_time_under_load_misses_nothing_and_repeats_nothing(
    start: Start, stream_of: Stream
) -> None:
    replica, people, chance = start(heartbeat_s=0.3), [person() for _ in range(3)], random.Random(7)
    clients = [stream_of(replica, each).open() for each in people]
    for client in clients:
        wait_for_place(client)
    published: dict[str, list[str]] = {each: [] for each in people}
    for _ in range(25):
        for each, client in zip(people, clients, strict=True):
            published[each] += replica.publish(each, chance.randint(1, 4))
            if chance.random() < 0.5:
                client.cut()
                published[each] += replica.publish(each, chance.randint(0, 3) or 1)
                client.open()
    for each, client in zip(people, clients, strict=True):
        client.wait_for(len(published[each]))
        assert ids(client) == published[each]


def test_what_happens_to_an_instance_reaches_whom_it_concerns_on_each_replica_once_their_list_shows_it(
    connection: Connection,
    streams_service: Any,
    databases: Databases,
    tmp_path: Path,
    *,
    eventually: Any,
) -> None:
    url = str(databases.new_url("postgresql"))
    replicas = [CenterProcess(tmp_path, connection, CENTER_DATABASE_URL=url) for _ in range(2)]
    streams_service.start()
    eventually(streams_service.is_ready, what="the worker is ready")
    created, *_ = [each for each in lives(1, seed=31) if each.task_id == "T-1" and each.recipient_ids]
    # Only this person's: the topics also have records that other tests left.
    bob = person()
    first = msgspec.structs.replace(created, instance_id=str(uuid.uuid4()), recipient_ids=(bob,))
    user = f"/v1/corps/{first.corp_id}/users/{bob}"
    try:
        for each in replicas:
            each.start()
        eventually(lambda: all(each.is_ready() for each in replicas), what="the lists are filled")
        clients = [EventStreamClient(events_url(each, bob, first.corp_id)).open() for each in replicas]
        for client in clients:
            wait_for_place(client)
        produce(connection, [first])
        for client, replica in zip(clients, replicas, strict=True):
            event = client.wait_for(1)[0]
            assert (event["instance_id"], event["view"], event["change"]) == (first.instance_id, "pending", "ADDED")
            found = http_clients.get(f"{replica.url}{user}/tasks", params={"view": "pending"}).json()
            assert found["items"][0]["instance_id"] == first.instance_id
            assert "taskbridge_center_sse_connections 1.0" in http_clients.get(f"{replica.url}/metrics").text

        assert replicas[0].stop() == 0
        assert clients[0].ended.wait(60)
        second = {"event_id": str(uuid.uuid4()), "task_id": "T-9", "occurred_at": first.occurred_at + 1}
        produce(connection, [msgspec.structs.replace(first, **second)])
        clients[0].url = events_url(replicas[1], bob, first.corp_id)
        clients[0].open()
        for client in clients:
            assert client.wait_for(2)[1]["task_id"] == "T-9"
            assert client.resets == []
            client.cut()
    finally:
        for each in replicas:
            each.kill()
            each.show_log()
