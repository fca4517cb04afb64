"""From a wrong token to the event on the topic, with the real edge, the real Kafka and the real program."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, cast

import pytest

from support import forked, http_clients
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of, write_credentials
from support.edge.process import RunningEdge
from support.kafka.records import quarantined
from taskbridge.edge.sender import encode_callback, signed
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    import httpx2
    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.events import QuarantinedCallback

pytestmark = pytest.mark.integration

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Edge(RunningEdge):
    """The edge as it runs in production, with a client of its own; it can be restarted on the same folder."""

    def __init__(self, folder: Path, connection: Connection, **environment: str) -> None:
        # These tests are not about a slow Kafka, and the machine may be busy.
        own = {"EDGE_LOG_LEVEL": "INFO", "EDGE_KAFKA_TIMEOUT_MS": "20000"}
        super().__init__(
            folder,
            bootstrap_servers=connection.bootstrap_servers,
            registry_url=connection.registry_url,
            **(own | environment),
        )
        self.client = http_clients.client(base_url=self.url)
        self._starts = 0

    def start(self, *prefix: str) -> None:
        super().start(*prefix)
        deadline = time.monotonic() + 60
        self._starts += 1
        while len(self.lines("edge_started")) < self._starts or not self.is_ready():
            assert time.monotonic() < deadline, self.log_path.read_text("utf-8")
            time.sleep(0.05)

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def send(self, wire_action: str, parameters: Mapping[str, str]) -> httpx2.Response:
        encoded = encode_callback(parameters, "json")
        headers = {**encoded.headers, "traceparent": TRACE, "Connection": "close"}
        return self.client.post(f"/yida/tasks/{wire_action}", content=encoded.body, headers=headers)

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]


@pytest.fixture
def start_edge(tmp_path: Path, connection: Connection) -> Generator[Callable[..., Edge]]:
    started: list[Edge] = []

    def start(token: str = SYSTEM_TOKEN, *, next_to: Edge | None = None, **environment: str) -> Edge:
        """``next_to`` is an edge that already has the data folder and the port: both serve there."""
        edge = Edge(tmp_path, connection, **environment)
        if next_to is not None:
            edge.environment["EDGE_PORT"] = next_to.environment["EDGE_PORT"]
            edge.url, edge.log_path = next_to.url, tmp_path / f"edge-{len(started)}.log"
        write_credentials(edge.credentials, token)
        started.append(edge)
        edge.start()
        return edge

    yield start
    for edge in started:
        edge.end()
        edge.client.close()


@pytest.fixture
def instance_id() -> str:
    return f"inst-{uuid.uuid4()}"


@pytest.fixture
def events_of(read_topic: Callable[[str], list[Message]]) -> Callable[[str], list[Message]]:
    def found(instance_id: str) -> list[Message]:
        return [each for each in read_topic(TASK_EVENTS.name) if each.key() == instance_id.encode()]

    return found


@pytest.fixture
def entries_of(
    read_topic: Callable[[str], list[Message]], connection: Connection, eventually: Any
) -> Callable[[str, int], list[QuarantinedCallback]]:
    """The quarantined callbacks whose body or query names this text, in order of receipt, once there are so many.

    They are stored after the answer, on a topic that may have been created a moment ago.
    """

    def there(text: str) -> list[QuarantinedCallback]:
        entries = quarantined(connection, read_topic)
        named = [each for each in entries if text in each.query or text.encode() in each.body]
        return sorted(named, key=lambda each: each.received_at)

    def found(text: str, least: int) -> list[QuarantinedCallback]:
        return eventually(lambda: len(stored := there(text)) >= least and stored, what=f"{least} are stored")

    return found


def good(wire_action: str, instance_id: str, token: str = SYSTEM_TOKEN, **changed: str) -> dict[str, str]:
    return signed({**parameters_of(wire_action, instance_id=instance_id), **changed}, system_token=token)


def taskbridge(connection: Connection, *arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the program; returns its exit code, the JSON lines that it printed, and its standard error."""
    addresses = ["--bootstrap-servers", connection.bootstrap_servers, "--registry-url", connection.registry_url]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    done = forked.taskbridge(*arguments, *addresses, "--json", environment=inherited | environment)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def shown_in_list(connection: Connection, *entries: QuarantinedCallback) -> list[dict[str, Any]]:
    code, listed, _ = taskbridge(connection, "quarantine", "list", "--reason", "wrong-sign")
    assert code == 0
    return [each for each in listed if each["id"] in {entry.quarantine_id for entry in entries}]


def test_after_the_token_was_fixed_the_callback_is_on_the_topic_once_with_its_own_time(
    *,
    start_edge: Callable[..., Edge],
    connection: Connection,
    instance_id: str,
    events_of: Callable[[str], list[Message]],
    entries_of: Callable[[str, int], list[QuarantinedCallback]],
) -> None:
    edge = start_edge("an-old-token")
    parameters = good("complete", instance_id)
    before = time.time_ns() // 1_000_000
    assert edge.send("complete", parameters).status_code == 401
    after = time.time_ns() // 1_000_000
    assert edge.send("complete", good("complete", instance_id, "forged")).status_code == 401
    assert events_of(instance_id) == []
    genuine, forged = entries_of(instance_id, 2)
    assert (genuine.reason, genuine.app_type, genuine.remote_address) == ("wrong-sign", APP_TYPE, "127.0.0.1")
    assert genuine.body == encode_callback(parameters, "json").body

    mine = shown_in_list(connection, genuine, forged)
    assert [each["id"] for each in mine] == [genuine.quarantine_id, forged.quarantine_id]
    assert (mine[0]["action"], mine[0]["app_type"], mine[0]["replayed_at"]) == ("complete", APP_TYPE, None)
    code, (shown,), _ = taskbridge(connection, "quarantine", "show", genuine.quarantine_id)
    assert (code, json.loads(shown["body"])) == (0, parameters)

    assert time.time_ns() // 1_000_000 > after  # its own time is not the time of the replay
    write_credentials(edge.credentials, SYSTEM_TOKEN)
    replay = ("quarantine", "replay", genuine.quarantine_id, forged.quarantine_id)
    fixed = {"EDGE_CREDENTIALS_FILE": str(edge.credentials), "EDGE_DATA_DIR": str(edge.data_dir)}
    code, printed, _ = taskbridge(connection, *replay, "--dry-run", **fixed)
    assert (code, [each["outcome"] for each in printed]) == (1, ["would-be-released", "rejected"])
    assert events_of(instance_id) == []
    code, printed, _ = taskbridge(connection, *replay, **fixed)
    assert (code, [(each["outcome"], each["reason"]) for each in printed]) == (
        1,
        [("released", None), ("rejected", "wrong-sign")],
    )
    replayed = [each["replayed_at"] for each in shown_in_list(connection, genuine, forged)]
    assert replayed[1] is None
    assert replayed[0] is not None
    assert replayed[0] > mine[0]["received_at"]
    code, again, _ = taskbridge(connection, *replay, **fixed)
    assert (code, [each["outcome"] for each in again]) == (1, ["already-published", "rejected"])
    assert [each["replayed_at"] for each in shown_in_list(connection, genuine, forged)] == replayed
    _, (shown,), _ = taskbridge(connection, "quarantine", "show", genuine.quarantine_id)
    assert shown["replayed_at"] == replayed[0]

    (message,) = events_of(instance_id)
    event = task_event_codec(connection.registry).decode(message.value())
    assert before <= event.received_at <= after
    assert event.received_at == genuine.received_at
    assert (event.event_id, event.raw_parameters) == (printed[0]["event_id"], parameters)
    assert dict(cast("list[tuple[str, bytes]]", message.headers())) == {
        "ce_specversion": b"1.0",
        "ce_id": event.event_id.encode(),
        "ce_type": b"taskbridge.task.completed.v1",
        "ce_source": f"/yida/{CORP_ID}/{APP_TYPE}".encode(),
        "ce_subject": instance_id.encode(),
        "ce_time": b"2023-08-31T06:07:42.502Z",
        "content-type": b"application/avro",
        "traceparent": TRACE.encode(),
    }
    # The running edge knows the released callback: it refuses a copy for another action, and accepts a repeat.
    deadline = time.monotonic() + 60
    while edge.send("complete", good("complete", f"another-{uuid.uuid4()}")).status_code != 200:
        assert time.monotonic() < deadline, "the edge does not know the new token"
        time.sleep(0.1)
    assert edge.send("cancel", parameters).status_code == 401
    assert [each.reason for each in entries_of(instance_id, 3)][-1] == "cross-action-replay"
    assert edge.send("complete", parameters).status_code == 200


def accepts(first: str, second: str) -> bool:
    """Whether the other action's shape can be made of this one's values; where not, it is refused for its shape."""
    flat = ("complete", "cancel")
    return (
        (first in flat and second in (*flat, "delete", "cc"))
        or {first, second} == {"create", "cc"}
        or (first == "delete" and second == "cc")
        or (first == "cc" and second == "create")
    )


def test_copies_that_race_their_original_never_both_pass(start_edge: Callable[..., Edge]) -> None:
    edge = start_edge()
    start_edge(next_to=edge)
    run = uuid.uuid4().hex
    passed: list[tuple[int, str]] = []

    def send(wire_action: str) -> None:
        for number in range(60):
            parameters = good("complete", f"{run}-{number}")
            if edge.send(wire_action, parameters).status_code == 200:
                passed.append((number, wire_action))

    threads = [threading.Thread(target=send, args=(wire_action,)) for wire_action in ("complete", "cancel", "cc")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in passed) == list(range(60))
