"""The events topic from outside, and the proof that every server writes the right events to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import httpx2
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import OffsetSpec
from msgspec.structs import replace
from tests.bench.command import NotCounted

from taskbridge.runtime.kafka import admin_client, consumer_config
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from confluent_kafka import Message
    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.servers import Server

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.schemas.registry import Registry


_SETTLED_S = 0.15
_READ_S = 10.0


class EventsTopic:
    """Counts and reads; writes nothing."""

    def __init__(self, bootstrap_servers: str, registry: Registry) -> None:
        self._admin = admin_client(bootstrap_servers)
        self._consumer = Consumer(consumer_config(bootstrap_servers, "bench"))
        self._codec = task_event_codec(registry)

    def ends(self) -> list[int]:
        """The end of each partition now."""
        latest = cast("OffsetSpec", OffsetSpec.latest())
        partitions = {TopicPartition(TASK_EVENTS.name, each): latest for each in range(DEFAULT_PARTITIONS)}
        found = cast("dict[TopicPartition, Future[Any]]", self._admin.list_offsets(partitions))
        return [found[each].result(_READ_S).offset for each in partitions]

    def settled_count(self) -> int:
        """The number of records ever written, once writing has ended."""
        count = sum(self.ends())
        while True:
            time.sleep(_SETTLED_S)
            before, count = count, sum(self.ends())
            if count == before:
                return count

    def find(self, event_id: str, *, after: list[int]) -> tuple[TaskEvent, dict[str, bytes], bytes | None, int]:
        """The record with that id, behind the given ends: event, headers, key, partition. Time of receipt is 0.

        Raises:
            AssertionError: there is none.
        """
        self._consumer.assign([TopicPartition(TASK_EVENTS.name, *each) for each in enumerate(after)])
        deadline = time.monotonic() + _READ_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                headers = _headers(message)
                if headers.get("ce_id") == event_id.encode():
                    event = self._codec.decode(message.value())
                    partition = message.partition()
                    assert partition is not None
                    return replace(event, received_at=0), headers, message.key(), partition
        raise AssertionError(f"no record with the id {event_id}")

    def close(self) -> None:
        self._consumer.close()


def _headers(message: Message) -> dict[str, bytes]:
    return {name: value for name, value in message.headers() or [] if isinstance(value, bytes)}


_SAMPLES = (0, 1, 4999)
_OK, _UNVERIFIED, _MALFORMED = 200, 401, 400


def prove_same_work(servers: Sequence[Server], kinds: Sequence[Kind], topic: EventsTopic) -> int:
    """Compare what each server makes of some callbacks with what the first makes of them; returns how many were.

    Raises:
        NotCounted: something differs; the message says what.
    """
    compared = 0
    for kind in kinds:
        for number in _SAMPLES:
            expected: Any = None
            for server in servers:
                found = _answer_and_record(server, kind, kind.bodies[number], topic)
                expected = found if expected is None else expected
                if found != expected and server.store == "kafka":
                    raise NotCounted(f"{server.name} makes another record of a {kind.name}: {found} is not {expected}")
                compared += 1
        for server in servers:
            _refuses(server, kind, kind.forged, _UNVERIFIED)
            _refuses(server, kind, kind.bodies[0].replace(b"%7B", b"%7B%7B").replace(b"{", b"{{"), _MALFORMED)
    return compared


def _answer_and_record(server: Server, kind: Kind, body: bytes, topic: EventsTopic) -> object:
    before = topic.ends()
    response = _post(server, kind, body)
    if response.status_code != _OK:
        raise NotCounted(f"{server.name} answers {response.status_code} to a {kind.name}")
    answer: dict[str, Any] = response.json()
    event_id = answer["eventId"]
    if answer != {"success": True, "eventId": event_id, "durability": server.store}:
        raise NotCounted(f"{server.name} answers {answer}")
    return topic.find(event_id, after=before) if server.store == "kafka" else None


def _refuses(server: Server, kind: Kind, body: bytes, status: int) -> None:
    found = _post(server, kind, body).status_code
    if found != status:
        raise NotCounted(f"{server.name} answers {found}, not {status}, to a bad {kind.name}")


def _post(server: Server, kind: Kind, body: bytes) -> httpx2.Response:
    headers = {"Content-Type": kind.content_type}
    return httpx2.post(server.url + kind.url_path, content=body, headers=headers, timeout=10, trust_env=False)
