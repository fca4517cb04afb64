"""A command's connection to Kafka and the registry: where it is found, and reading topics through it."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import OFFSET_END

from taskbridge.cli import data_folder as folders
from taskbridge.cli.terminal import Heartbeat, call_with_heartbeat
from taskbridge.runtime.kafka import admin_client, consumer_config, read_kafka_config
from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader
from taskbridge.schemas.cloudevents import header_pairs, rfc3339, text_of
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.registry import Registry, RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from confluent_kafka import Message

    from taskbridge.cli.terminal import Progress
    from taskbridge.runtime.kafka import Admin
    from taskbridge.runtime.producer import AsyncProducer

GROUP = "taskbridge-operator"
LOCAL_BOOTSTRAP_SERVERS, _LOCAL_KAFKA_PORT = "127.0.0.1:9092", 9092
LOCAL_REGISTRY_URL = "http://127.0.0.1:8081/apis/ccompat/v7"

_OTHERS = "set --bootstrap-servers and --registry-url"
_PREFIXES = ("TASKBRIDGE", "EDGE", "STREAMS", "CENTER", "WEBHOOKS")
_STALLED_S = 30


@dataclass(frozen=True)
class Connection:
    """Addresses, extra client properties (TLS, SASL, registry), and one shared registry client.

    Methods that read join no group and commit nothing.
    """

    bootstrap_servers: str
    registry_url: str
    kafka_properties: Mapping[str, str]
    is_default: bool = False

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.registry_url, properties=self.kafka_properties)

    def close(self) -> None:
        self.registry.close()

    def admin(self) -> Admin:
        return admin_client(self.bootstrap_servers, self.kafka_properties)

    def producer(self) -> AsyncProducer:
        from taskbridge.runtime.producer import AsyncProducer

        return AsyncProducer.connect(self.bootstrap_servers, self.kafka_properties)

    def reader(self, **properties: object) -> PartitionReader:
        """A reader with these extra properties. It does not log librdkafka's messages."""
        config = consumer_config(self.bootstrap_servers, GROUP, self.kafka_properties)
        return PartitionReader({**config, **properties})

    def read_to_end(self, topic: str, *, progress: Progress, since_ms: int | None = None) -> Iterator[Message]:
        """Every record on the topic at the time of the call, each partition in order; only from ``since_ms`` if given.

        Raises:
            ConfigurationError: the topic does not exist.
            OperatorError: Kafka does not answer, or stops answering.
        """
        with closing(self.reader()) as reader:
            bounds = call_with_heartbeat(
                lambda: reader.bounds(topic, since_ms=since_ms),
                progress,
                f"waiting for Kafka at {self.bootstrap_servers}",
            )
            starts = {each: first for each, (first, _) in bounds.items()}
            ends = {each: end for each, (_, end) in bounds.items()}
            heartbeat, count = Heartbeat(progress), 0
            for batch in reader.read(topic, starts, ends, quiet_s=_STALLED_S):
                count += len(batch)
                yield from batch
                heartbeat.beat(f"reading {topic}: {count} records")

    def read_one(self, topic: str, partition: int, offset: int) -> Message | None:
        """The record at this offset; None if it is no longer stored. Raises OperatorError if Kafka does not answer."""
        with closing(self.reader(**{"auto.offset.reset": "error"})) as reader, suppress(OutOfRange):
            for batch in reader.read(topic, {partition: offset}, {partition: offset + 1}, quiet_s=_STALLED_S):
                for message in batch:
                    return message
        return None

    def follow(self, topic: str, *, from_beginning: bool) -> Generator[list[Message]]:
        """The records of all partitions in batches as they arrive; empty batches while none arrive. Never ends.

        Raises ConfigurationError if the topic does not exist; OperatorError if Kafka does not answer.
        """
        with closing(self.reader()) as reader:
            partitions = reader.partitions(topic)
            starts = dict.fromkeys(partitions, 0 if from_beginning else OFFSET_END)
            yield from reader.read(topic, starts, dict.fromkeys(partitions, inf))


class Decoder:
    """Decodes a record into the JSON object that ``tail`` prints, by the schema id in the record."""

    def __init__(self, registry: Registry) -> None:
        from confluent_kafka.schema_registry.avro import AvroDeserializer

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
        except Exception:  # noqa: BLE001 - the library raises anything for undecodable bytes
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


def find_connection(
    bootstrap_servers: str | None,
    registry_url: str | None,
    environment: Mapping[str, str] = os.environ,
    *,
    data_dir: Path | None = None,
) -> Connection:
    """The connection of a command.

    Addresses are the first of: the option, the bridge that runs in ``data_dir``, ``TASKBRIDGE_*``, the services' own
    settings, the bridge that runs in ``TASKBRIDGE_DATA_DIR`` or here, the local stack's default.

    Raises ConfigurationError if only a data folder is given, and no bridge runs in it.
    """
    folder = folders.data_folder(data_dir, environment)
    running = folder.running()
    servers, url = first_given(environment, "KAFKA_BOOTSTRAP_SERVERS"), first_given(environment, "SCHEMA_REGISTRY_URL")
    if running is not None and (data_dir is not None or not (servers or url)):
        servers, url = running.bootstrap_servers, running.registry_url
    servers, url = bootstrap_servers or servers, registry_url or url
    if not (servers or url) and folder.is_named and folder.is_bridges:
        raise ConfigurationError(f"{folder.nothing_runs()}, or {_OTHERS}")
    config_file = first_given(environment, "KAFKA_CONFIG_FILE")
    properties = read_kafka_config(Path(config_file) if config_file else None)
    is_default = not (servers or url)
    return Connection(servers or LOCAL_BOOTSTRAP_SERVERS, url or LOCAL_REGISTRY_URL, properties, is_default=is_default)


def check_something_runs(connection: Connection) -> None:
    """Check that Kafka listens at the default address, where no address is given.

    Raises OperatorError if it does not; the message names ``taskbridge up`` and the options.
    """
    if connection.is_default and not folders.is_listened_on(_LOCAL_KAFKA_PORT):
        raise OperatorError(f"{folders.data_folder().nothing_runs()}, or {_OTHERS}")


def first_given(environment: Mapping[str, str], name: str) -> str | None:
    """The first that is set: ``TASKBRIDGE_NAME``, else that of a service."""
    return next((value for prefix in _PREFIXES if (value := environment.get(f"{prefix}_{name}"))), None)


def service_environment(
    prefix: str, bootstrap_servers: str | None = None, registry_url: str | None = None, data_dir: Path | None = None
) -> dict[str, str]:
    """The environment of a service; addresses of Kafka and the registry that it lacks are found as for every command.

    Options, also --data-dir, take precedence over the environment.
    """
    found = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
    environment = dict(os.environ)
    for name, option, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers or data_dir, found.bootstrap_servers),
        ("SCHEMA_REGISTRY_URL", registry_url or data_dir, found.registry_url),
        ("KAFKA_CONFIG_FILE", data_dir, first_given(environment, "KAFKA_CONFIG_FILE")),
    ):
        if value is not None and (option is not None or not environment.get(f"{prefix}_{name}")):
            environment[f"{prefix}_{name}"] = value
    return environment
