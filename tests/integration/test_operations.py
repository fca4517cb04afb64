"""What operators see, from any worker: all workers together, what was set aside, and what became of one callback."""

from __future__ import annotations

import signal
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka import Producer

from support import http_clients
from support.streams.lives import lives, produce
from support.streams.processes import Worker
from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.codec import quarantined_callback_codec
from taskbridge.schemas.dead_letters import replay_headers
from taskbridge.schemas.events import QuarantinedCallback
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS, TASK_EVENTS_DLQ

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration


@pytest.fixture
def workers(connection: Connection, tmp_path: Path, eventually: Any) -> Generator[list[Worker]]:
    nobody = "http://127.0.0.1:9"
    found = [Worker(tmp_path, connection, STREAMS_EDGE_URLS=nobody) for _ in range(2)]
    for each in found:
        each.start()
    eventually(
        lambda: all(each.is_ready() and each.readiness()["partitions"]["active"] for each in found),
        what="both workers have partitions",
    )
    yield found
    for each in found:
        each.kill_if_running()


def get(worker: Worker, path: str, **query: str) -> dict[str, Any]:
    found = http_clients.get(f"http://127.0.0.1:{worker.port}/v1/ops/{path}", params=query, timeout=30)
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


def test_any_worker_shows_all_workers_and_what_happened_to_a_callback(
    connection: Connection, workers: list[Worker], eventually: Any
) -> None:
    events = [each for each in lives(3, seed=77) if each.action != "DELETED"]
    instance_id = events[0].instance_id
    produce(connection, [msgspec.structs.replace(each, received_at=time.time_ns() // 1_000_000) for each in events])
    set_aside(connection, instance_id)

    for worker in workers:
        found = eventually(
            lambda each_worker=worker: (
                (answer := get(each_worker, "callbacks", instance_id=instance_id)).get("dead_letters")
                and answer["notifications"]
                and answer
            ),
            what="the search finds all of it",
        )
        assert found["verdict"].startswith("Received: "), found["verdict"]
        assert "Rejected by the edge once: wrong-sign" in found["verdict"]
        assert "Parked as a dead letter once: undecodable" in found["verdict"]
        assert found["state"]["instance_id"] == instance_id
        event_ids = {each.event_id for each in events if each.instance_id == instance_id}
        assert {each["event_id"] for each in found["history"]["events"]} == event_ids
        assert "sign=" not in str(found["quarantined"])
        assert "authorization" not in str(found).lower()
        assert found["searched"]["quarantine_records"] >= 1

        # A request lets it read for two seconds, and shows what it has by then.
        seen = eventually(
            lambda each_worker=worker: (
                (answer := get(each_worker, "overview"))["dead_letters"]["reasons"].get("undecodable") and answer
            ),
            what="the overview has read that far",
        )
        urls = {f"http://127.0.0.1:{each.port}" for each in workers}
        assert {each["url"] for each in seen["workers"] if each["reachable"]} == urls
        assert {each["worker"] for each in seen["partitions"]} == urls
        assert [each["partition"] for each in seen["partitions"]] == list(range(12))
        assert sum(map(sum, seen["flow"]["actions"].values())) >= len(event_ids)
        assert seen["quarantine"]["reasons"]["wrong-sign"] >= 1
        assert seen["dead_letters"]["reasons"]["undecodable"] >= 1
        assert seen["dead_letters"]["latest"][0]["key"]
        assert seen["edges"][0]["reachable"] is False
        assert any(each["message"].startswith("record_parked: reason undecodable") for each in seen["errors"])

    found = get(workers[0], "callbacks", instance_id=instance_id)
    mark_replayed(connection, found["quarantined"][0]["id"], found["dead_letters"][0]["id"])
    for worker in workers:
        again = eventually(
            lambda each_worker=worker: (
                (answer := get(each_worker, "callbacks", instance_id=instance_id)).get("dead_letters")
                and answer["dead_letters"][0]["replayed_at"]
                and answer
            ),
            what="the search finds the replay",
        )
        assert again["verdict"].endswith(
            f"wrong-sign; replayed at {REPLAYED}. Parked as a dead letter once: undecodable; replayed at {REPLAYED}."
        )
        eventually(
            lambda each_worker=worker: (
                REPLAYED in {each["replayed_at"] for each in get(each_worker, "overview")["quarantine"]["latest"]}
            ),
            what="the overview shows the replay",
        )

    nothing = get(workers[0], "callbacks", instance_id="never heard of")
    assert nothing["verdict"].startswith("Never received here since ")
    assert (nothing["state"], nothing["history"]) == (None, None)

    workers[1].signal(signal.SIGSTOP)
    try:
        hung = next(each for each in get(workers[0], "overview")["workers"] if str(workers[1].port) in each["url"])
        assert hung["reachable"] is False
    finally:
        workers[1].signal(signal.SIGCONT)
