"""Makes events durable: Avro onto ``taskbridge.task-events.v1``, no answer before all in-sync replicas have them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import structlog
from confluent_kafka import KafkaException, Producer

from edge.errors import NotDurable
from schemas.cloudevents import event_headers
from schemas.codec import task_event_codec
from schemas.errors import ConfigurationError, TaskbridgeError
from schemas.registry import Registry
from schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS
from service.kafka import (
    AsyncProducer,
    DeliveryFailed,
    QueueFull,
    admin_client,
    producer_config,
    read_kafka_config,
    within,
)
from service.topic_admin import apply_topics

if TYPE_CHECKING:
    from edge.settings import EdgeSettings
    from schemas.events import TaskEvent

_OWN_TOPICS = (TASK_EVENTS, CALLBACKS_QUARANTINE)

_FIRST_RETRY_S = 0.25
_LAST_RETRY_S = 5.0
_CHECK_S = 2.0

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_log = structlog.stdlib.get_logger(__name__)


class Durability(StrEnum):
    """What keeps an event when its callback is answered."""

    KAFKA = "kafka"


class Publisher(Protocol):
    """What the path of a callback needs of whatever keeps events."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def health(self) -> dict[str, str]:
        """Each part that is needed to keep an event, and ``ok`` or what is the matter with it."""
        ...

    async def publish(self, event: TaskEvent, *, traceparent: str | None) -> Durability:
        """Return once the event is durable.

        Raises:
            NotDurable: it is not, or that is not known.
        """
        ...


def valid_traceparent(header: str | None) -> str | None:
    """A W3C trace context that can be handed on, or None."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


class KafkaPublisher:
    """Publishes to Kafka. Starts without Kafka and registry, and becomes able by itself once they answer."""

    def __init__(self, settings: EdgeSettings, *, partitions: int) -> None:
        """Check the configuration, without connecting to anything.

        Raises:
            ConfigurationError: the Kafka config file cannot be read, or librdkafka refuses a property.
        """
        self._settings = settings
        self._partitions = partitions
        self._extra = read_kafka_config(settings.kafka_config_file)
        self._config = producer_config(settings.kafka_bootstrap_servers, self._extra)
        try:
            Producer(dict(self._config), logger=logging.getLogger("librdkafka"))
        except KafkaException as error:
            raise ConfigurationError(f"Kafka's configuration: {error.args[0].str()}") from error
        self._registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json")
        self._codec = task_event_codec(self._registry)
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._kafka_answers = False
        self._topics_exist = False
        self._schemas_known = self._registry.knows(_OWN_TOPICS)
        self._schemas_registered = False

    async def start(self) -> None:
        self._producer = AsyncProducer(self._config)
        self._upkeep = asyncio.create_task(self._keep_prepared())

    async def close(self) -> None:
        """Wait, within bounds, for what was handed to Kafka."""
        self._upkeep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._upkeep
        left = await self._producer.close()
        self._registry.close()
        if left:
            _log.error("records_left_behind", records=left)

    def health(self) -> dict[str, str]:
        kafka = "ok" if self._topics_exist else "its topics are not made sure of yet"
        return {
            "kafka": kafka if self._kafka_answers else "does not answer",
            "spool": "none",
            "registry": "ok" if self._schemas_known else "has not given the schemas' ids yet",
        }

    async def publish(self, event: TaskEvent, *, traceparent: str | None) -> Durability:
        if not self._schemas_known:
            raise NotDurable("the schema registry has not answered yet")
        if not self._topics_exist:
            # Kafka would create the topic on the first record, with settings that are not the contract's.
            raise NotDurable("Kafka has not answered yet")
        try:
            delivery = self._producer.produce(
                TASK_EVENTS.name,
                key=event.instance_id.encode(),
                value=self._codec.encode(event),
                headers=event_headers(event, traceparent=traceparent),
            )
            await within(self._timeout_s, delivery)
        except TimeoutError as error:
            raise NotDurable("Kafka did not acknowledge the event in time") from error
        except (DeliveryFailed, QueueFull) as error:
            raise NotDurable(str(error)) from error
        return Durability.KAFKA

    async def _keep_prepared(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                await self._prepare()
            except Exception as error:  # noqa: BLE001 - this task must outlive whatever the surroundings do
                _log.warning("not_prepared", problem=str(error), foreseen=isinstance(error, TaskbridgeError))
            if self._kafka_answers and self._topics_exist and self._schemas_registered:
                retry_s = _FIRST_RETRY_S
                await asyncio.sleep(_CHECK_S)
            else:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _prepare(self) -> None:
        await self._check_kafka()
        if not self._schemas_registered:
            await asyncio.to_thread(self._registry.register, _OWN_TOPICS)
            self._schemas_registered = self._schemas_known = True
            _log.info("schemas_registered")

    async def _check_kafka(self) -> None:
        answers = await self._producer.answers()
        if answers != self._kafka_answers:
            _log.info("kafka_answers" if answers else "kafka_does_not_answer")
        self._kafka_answers = answers
        # Only now, because the admin client would wait a quarter of a minute for a broker that is away.
        if answers and not self._topics_exist:
            try:
                await asyncio.to_thread(self._apply_topics)
            except TaskbridgeError as error:
                _log.warning("topics_not_applied", problem=str(error))

    def _apply_topics(self) -> None:
        admin = admin_client(self._settings.kafka_bootstrap_servers, self._extra)
        for report in apply_topics(admin, _OWN_TOPICS, partitions=self._partitions):
            _log.info("topic_applied", topic=report.name, created=report.created, partitions=report.partitions)
            for line in report.drift:
                _log.warning("topic_differs", topic=report.name, difference=line)
        self._topics_exist = True
