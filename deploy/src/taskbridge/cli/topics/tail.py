"""Follow a topic like any consumer, and decode its records to JSON values."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import OFFSET_END
from confluent_kafka.schema_registry.avro import AvroDeserializer

from taskbridge.cli.topics.reading import partitions_of, reader_of
from taskbridge.schemas.cloudevents import header_pairs, rfc3339, text_of
from taskbridge.schemas.registry import RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Generator

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.schemas.registry import Registry


def follow(connection: Connection, topic: str, *, from_beginning: bool) -> Generator[list[Message]]:
    """The records of all partitions in batches as they arrive; empty batches while none arrive. Never ends.

    Raises:
        ConfigurationError: the topic does not exist.
        OperatorError: Kafka does not answer.
    """
    with closing(reader_of(connection)) as reader:
        partitions = partitions_of(connection, reader.consumer, topic)
        starts = dict.fromkeys(partitions, 0 if from_beginning else OFFSET_END)
        yield from reader.read(topic, starts, dict.fromkeys(partitions, inf))


class Decoder:
    """Decodes a record into the JSON object that ``tail`` prints, by the schema id in the record."""

    def __init__(self, registry: Registry) -> None:
        deserializer: Any = AvroDeserializer
        self._deserialize = deserializer(registry.client)

    def __call__(self, message: Message) -> dict[str, Any]:
        kind_and_timestamp = message.timestamp()
        return {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "key": text_of(message.key()),
            "timestamp": rfc3339(kind_and_timestamp[1]),
            "headers": {name: text_of(value) for name, value in header_pairs(message)},
            "value": self.value(message.value()),
        }

    def value(self, value: bytes | None) -> Any:
        """The decoded value; a value without a schema (as in dead letters) as text, else as base64."""
        if value is None:
            return None
        try:
            return json_value(self._deserialize(value))
        except RegistryUnavailable:
            raise
        except Exception:  # noqa: BLE001 - undecodable bytes surface as anything
            return text_of(value)


def json_value(value: Any) -> Any:
    """Times as RFC 3339, bytes as text or base64, everything else unchanged."""
    if isinstance(value, dict):
        return {key: json_value(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [json_value(each) for each in cast("list[Any]", value)]
    if isinstance(value, datetime):
        return rfc3339(round(value.timestamp() * 1000))
    return text_of(value) if isinstance(value, bytes) else value
