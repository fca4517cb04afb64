"""Records written and read outside our clients: header names that are not UTF-8, entries of the quarantine."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import confluent_kafka

from taskbridge.runtime.kafka import producer_config
from taskbridge.schemas.codec import quarantined_callback_codec
from taskbridge.schemas.dead_letters import without_replays
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.cli.connection import Connection

    Given = tuple[bytes, bytes | None, list[tuple[bytes, bytes]]]
    from collections.abc import Callable

    from confluent_kafka import Message

    from taskbridge.schemas.events import QuarantinedCallback


_TOPIC, _VALUE, _KEY, _FLAGS, _HEADER, _END = (ctypes.c_int(each) for each in (1, 4, 5, 7, 9, 0))
_COPY = ctypes.c_int(2)


def produce_foreign(connection: Connection, topic: str, records: Iterable[Given], *, codec: str = "none") -> None:
    """Keys, values, and headers by the bytes of their names."""
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = confluent_kafka.Producer(config | {"compression.type": codec})
    [path] = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*")
    produce = ctypes.CDLL(str(path)).rd_kafka_producev
    handle = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__)
    for key, value, headers in records:
        named: list[Any] = [
            each
            for name, content in headers
            for each in (_HEADER, ctypes.c_char_p(name), ctypes.c_char_p(content), ctypes.c_ssize_t(len(content)))
        ]
        size = ctypes.c_size_t(len(value or b""))
        where = (_TOPIC, ctypes.c_char_p(topic.encode()), _FLAGS, _COPY)
        what = (_KEY, ctypes.c_char_p(key), ctypes.c_size_t(len(key)), _VALUE, ctypes.c_char_p(value), size)
        assert produce(handle, *where, *what, *named, _END) == 0
    assert producer.flush(30) == 0


def quarantined(connection: Connection, read_topic: Callable[[str], list[Message]]) -> list[QuarantinedCallback]:
    """Every entry; not the records that the tests of foreign headers produce to all topics."""
    codec = quarantined_callback_codec(connection.registry)
    messages = without_replays(read_topic(CALLBACKS_QUARANTINE.name), {})
    return [codec.decode(each.value()) for each in messages if each.key() != b"foreign"]
