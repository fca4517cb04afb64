"""The real edge process on the real Kafka: a callback is one record, a bad sender is stopped, and it stays well."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, cast

import httpx2
import pytest
from confluent_kafka import murmur2

from support import http_clients
from support.edge.fakes import APP_TYPE, CORP_ID, SYSTEM_TOKEN, parameters_of
from support.edge.process import RunningEdge, wait_until
from support.streams.lives import read_topic
from taskbridge.cli.connection import Connection
from taskbridge.edge.decision.callbacks import ACTIONS
from taskbridge.edge.sender import ENCODINGS, Encoding, encode_callback, signed
from taskbridge.local.host import free_port
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.local.jvm import Endpoints
    from taskbridge.schemas.events import TaskEvent

pytestmark = pytest.mark.integration

PARTITIONS = 12
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PAST = {
    "create": "created",
    "complete": "completed",
    "cancel": "cancelled",
    "delete": "deleted",
    "cc": "copied",
}


class EdgeProcess(RunningEdge):
    """The edge as it is run in production, started, with a client of its own."""

    def __init__(self, folder: Path, *, bootstrap_servers: str, registry_url: str, **environment: str) -> None:
        own = {"EDGE_LOG_LEVEL": "DEBUG", "TASKBRIDGE_PARTITIONS": str(PARTITIONS), "EDGE_KAFKA_TIMEOUT_MS": "20000"}
        super().__init__(folder, bootstrap_servers=bootstrap_servers, registry_url=registry_url, **(own | environment))
        self.client = http_clients.client(base_url=self.url)
        self.start()

    def send(self, wire_action: str, parameters: Mapping[str, str], encoding: Encoding = "json") -> httpx2.Response:
        encoded = encode_callback(parameters, encoding)
        path = f"/yida/tasks/{wire_action}?{encoded.query}"
        return self.client.post(path, content=encoded.body, headers={**encoded.headers, "traceparent": TRACE})

    def end(self) -> int:
        """Stop it as an orchestrator does; return its exit code."""
        self.client.close()
        return self.stop()


class EventsTopic:
    def __init__(self, stack: Endpoints) -> None:
        self._connection = Connection(stack.bootstrap_servers, stack.registry_url, {})
        self._codec = task_event_codec(self._connection.registry)

    def records(self, instance_id: str) -> list[Message]:
        """All records of one instance that are there now; others' tests put there what they like."""
        return [each for each in read_topic(self._connection, TASK_EVENTS.name) if each.key() == instance_id.encode()]

    def close(self) -> None:
        self._connection.close()

    def decode(self, record: Message) -> TaskEvent:
        return self._codec.decode(record.value())


def headers_of(record: Message) -> dict[str, bytes]:
    found = cast("list[tuple[str, bytes]]", record.headers() or [])
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


@contextmanager
def forwarder(port: int, target: str) -> Generator[None]:
    """Serves ``target`` at ``port`` too, for as long as it is open."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            answer = httpx2.request(self.command, target + self.path, content=body, headers=headers, trust_env=False)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the names that the server looks for

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


def good(wire_action: str, instance_id: str, token: str = SYSTEM_TOKEN) -> dict[str, str]:
    return signed(parameters_of(wire_action, instance_id=instance_id), system_token=token)


@pytest.fixture(scope="module")
def edge(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Generator[EdgeProcess]:
    edge = EdgeProcess(
        tmp_path_factory.mktemp("edge"), bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url
    )
    try:
        wait_until(edge.is_whole)
        yield edge
    finally:
        assert edge.end() == 0
    assert "edge_stopped" in [line["event"] for line in edge.log()]


@pytest.fixture(scope="module")
def topic(stack: Endpoints) -> Generator[EventsTopic]:
    with closing(EventsTopic(stack)) as topic:
        yield topic


@pytest.fixture
def instance_id() -> str:
    return f"inst-{uuid.uuid4()}"


def test_five_actions_in_four_encodings_arrive_as_one_record_each(
    edge: EdgeProcess, topic: EventsTopic, stack: Endpoints
) -> None:
    registered = http_clients.get(f"{stack.registry_url}/subjects/{TASK_EVENTS.subject}/versions/latest")
    schema_id: int = registered.json()["id"]
    for wire_action in ACTIONS:
        for encoding in ENCODINGS:
            instance_id = f"实例-{uuid.uuid4()}"
            parameters = good(wire_action, instance_id)
            answer = edge.send(wire_action, parameters, encoding)
            assert (answer.status_code, answer.json()["durability"]) == (200, "kafka"), (wire_action, encoding)
            (record,) = topic.records(instance_id)
            assert record.partition() == murmur2(instance_id.encode(), PARTITIONS)
            assert (record.value() or b"")[:5] == b"\x00" + schema_id.to_bytes(4, "big")
            assert headers_of(record) == {
                "ce_specversion": b"1.0",
                "ce_id": answer.json()["eventId"].encode(),
                "ce_type": f"taskbridge.task.{PAST[wire_action]}.v1".encode(),
                "ce_source": f"/yida/{CORP_ID}/{APP_TYPE}".encode(),
                "ce_subject": instance_id.encode(),
                "ce_time": b"2023-08-31T06:07:42.502Z",
                "content-type": b"application/avro",
                "traceparent": TRACE.encode(),
            }
            event = topic.decode(record)
            assert event.raw_parameters == parameters
            assert (event.event_id, event.instance_id) == (answer.json()["eventId"], instance_id)
            assert abs(event.received_at / 1000 - time.time()) < 60


def test_the_largest_body_is_one_record(edge: EdgeProcess, topic: EventsTopic, instance_id: str) -> None:
    parameters = parameters_of("create", instance_id=instance_id)
    room = (1 << 20) - len(encode_callback(good("create", instance_id), "json").body) - 100
    task = json.loads(parameters["task"])
    task["dataMap"] = {"long": os.urandom(room // 2).hex()}
    parameters = signed({**parameters, "task": json.dumps(task, ensure_ascii=False)}, system_token=SYSTEM_TOKEN)
    assert edge.send("create", parameters).status_code == 200
    (record,) = topic.records(instance_id)
    assert topic.decode(record).raw_parameters == parameters


def test_before_the_registry_was_ever_seen_callbacks_are_spooled(
    tmp_path: Path, stack: Endpoints, topic: EventsTopic, instance_id: str
) -> None:
    port = free_port()
    edge = EdgeProcess(tmp_path, bootstrap_servers=stack.bootstrap_servers, registry_url=f"http://127.0.0.1:{port}")
    try:
        wait_until(edge.is_ready)
        parameters = good("complete", instance_id)
        assert edge.send("complete", parameters).json()["durability"] == "spool"
        assert edge.client.get("/readyz").json()["registry"] != "ok"
        with forwarder(port, stack.registry_url):
            wait_until(edge.is_whole)
            wait_until(lambda: len(topic.records(instance_id)) == 1)
        (record,) = topic.records(instance_id)
        assert topic.decode(record).raw_parameters == parameters
        wait_until(lambda: edge.send("complete", parameters).json()["durability"] == "kafka")
    finally:
        assert edge.end() == 0
