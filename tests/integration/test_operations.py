"""What operators see: all workers together, what was set aside, and what became of one callback."""

from __future__ import annotations

import signal
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka import Producer

from support import http_clients
from support.center_process import CenterProcess
from support.streams.lives import lives, produce
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.codec import quarantined_callback_codec
from taskbridge.schemas.dead_letters import replay_headers
from taskbridge.schemas.events import QuarantinedCallback
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS, TASK_EVENTS_DLQ

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from support.streams.processes import Worker
    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration


@pytest.fixture
def center(workers: tuple[Worker, Worker], connection: Connection, tmp_path: Path) -> Generator[CenterProcess]:
    urls = ",".join(f"http://127.0.0.1:{each.port}" for each in workers)
    nobody = "http://127.0.0.1:9"
    with CenterProcess(tmp_path, connection, CENTER_STREAMS_URLS=urls, CENTER_EDGE_URLS=nobody) as found:
        yield found


def get(center: CenterProcess, path: str, **query: str) -> dict[str, Any]:
    found = http_clients.get(f"{center.url}/v1/ops/{path}", params=query, timeout=30)
    return found.json() if found.status_code == 200 else {}


def set_aside(connection: Connection, instance_id: str) -> None:
    """A rejected request that names the instance, and a record with its key that cannot be decoded."""
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    entry = QuarantinedCallback(
        quarantine_id=str(uuid.uuid4()),
        received_at=time.time_ns() // 1_000_000,
        action="complete",
        reason="wrong-sign",
        app_type="APP",
        remote_address="192.0.2.1",
        method="POST",
        path="/yida/tasks/complete",
        query="",
        headers={"authorization": "*** wrong"},
        body=f"formInstId={instance_id}&sign=00000000".encode(),
    )
    producer.produce(CALLBACKS_QUARANTINE.name, value=quarantined_callback_codec(connection.registry).encode(entry))
    producer.produce(TASK_EVENTS.name, key=instance_id.encode(), value=b"no record")
    assert producer.flush(30) == 0


REPLAYED_MS, REPLAYED = 1_769_846_400_000, "2026-01-31T08:00:00.000Z"


def mark_replayed(connection: Connection, quarantine_id: str, letter_id: str) -> None:
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for topic, entry_id in ((CALLBACKS_QUARANTINE, quarantine_id), (TASK_EVENTS_DLQ, letter_id)):
        headers: Any = replay_headers(entry_id, REPLAYED_MS)
        producer.produce(topic.name, value=None, headers=headers)
    assert producer.flush(30) == 0


def shown(found: dict[str, Any], entry_id: str) -> dict[str, Any] | None:
    return next((each for each in found["latest"] if each["id"] == entry_id), None)


@pytest.mark.usefixtures("as_if_nothing_ran")
def test_the_center_shows_all_workers_and_what_happened_to_a_callback(
    connection: Connection, workers: tuple[Worker, Worker], center: CenterProcess, eventually: Any
) -> None:
    for each in workers:
        each.start()
    center.start()
    eventually(
        lambda: all(each.is_ready() and each.readiness()["partitions"]["active"] for each in workers),
        what="both workers have partitions",
    )
    # What is there when it is filled is no change, and the search would have no notifications.
    eventually(center.is_ready, what="the task center is filled")
    events = [each for each in lives(3, seed=77) if each.action != "DELETED"]
    instance_id = events[0].instance_id
    produce(connection, [msgspec.structs.replace(each, received_at=time.time_ns() // 1_000_000) for each in events])
    set_aside(connection, instance_id)

    found = eventually(
        lambda: (
            (answer := get(center, "callbacks", instance_id=instance_id)).get("dead_letters")
            and answer["quarantined"]
            and answer["notifications"]
            and answer
        ),
        what="the search finds all of it",
    )
    assert [each["reason"] for each in found["quarantined"]] == ["wrong-sign"]
    assert [each["reason"] for each in found["dead_letters"]] == ["undecodable"]
    assert found["state"]["instance_id"] == instance_id
    event_ids = {each.event_id for each in events if each.instance_id == instance_id}
    assert {each["event_id"] for each in found["history"]["events"]} == event_ids
    assert "sign=" not in str(found["quarantined"])
    assert "authorization" not in str(found).lower()
    assert found["searched"]["quarantine_records"] == 1

    [rejected], [letter] = found["quarantined"], found["dead_letters"]
    urls = {f"http://127.0.0.1:{each.port}" for each in workers}
    seen = eventually(
        lambda: (
            (answer := get(center, "overview"))
            and shown(answer["dead_letters"], letter["id"])
            and {each["worker"] for each in answer["partitions"]} == urls
            and sum(map(sum, answer["flow"]["actions"].values())) == len({each.event_id for each in events})
            and answer["quarantine"]["reasons"]
            and answer
        ),
        what="the overview has read that far",
    )
    assert {each["url"] for each in seen["workers"] if each["reachable"]} == urls
    assert [each["partition"] for each in seen["partitions"]] == list(range(12))
    assert seen["quarantine"]["reasons"] == {"wrong-sign": 1}
    assert seen["dead_letters"]["reasons"] == {"undecodable": 1}
    assert seen["dead_letters"]["latest"][0]["key"] == instance_id
    assert seen["edges"][0]["reachable"] is False
    [replica] = seen["center"]["replicas"]
    assert (replica["ready"], seen["center"]["filled"]) == (True, 1)

    mark_replayed(connection, rejected["id"], letter["id"])
    again = eventually(
        lambda: (
            (answer := get(center, "callbacks", instance_id=instance_id))
            and answer["dead_letters"][0]["replayed_at"]
            and answer["quarantined"][0]["replayed_at"]
            and answer
        ),
        what="the search finds the replay",
    )
    assert {each["replayed_at"] for each in (*again["quarantined"], *again["dead_letters"])} == {REPLAYED}
    replayed = eventually(
        lambda: (answer := get(center, "overview")) and answer["quarantine"]["total"] == 0 and answer,
        what="the overview shows the replay",
    )
    for kind, entry_id in (("quarantine", rejected["id"]), ("dead_letters", letter["id"])):
        entry = shown(replayed[kind], entry_id)
        assert entry is not None
        assert (entry["replayed_at"], replayed[kind]["reasons"]) == (REPLAYED, {})

    nothing = get(center, "callbacks", instance_id="never heard of")
    assert (nothing["state"], nothing["history"]) == (None, None)

    workers[1].signal(signal.SIGSTOP)
    try:
        hung = next(each for each in get(center, "overview")["workers"] if str(workers[1].port) in each["url"])
        assert hung["reachable"] is False
    finally:
        workers[1].signal(signal.SIGCONT)
