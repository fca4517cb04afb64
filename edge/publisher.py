"""Makes events durable: Avro onto ``taskbridge.task-events.v1``, or into the spool while Kafka does not acknowledge.

Nothing is answered before all in-sync replicas have the event, or the disk has it. Here the parts are put together and
the surroundings are looked after: Kafka's topics, the registry's ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Protocol

import structlog
from confluent_kafka import KafkaException, Producer

from edge.durability import Durability  # noqa: TC001 - part of what is imported from here
from edge.errors import NotDurable, TooLarge
from edge.kafka_path import KafkaPath
from edge.outbox import Outbox
from edge.spool.keeper import SpoolKeeper
from edge.spool.metrics import SpoolMetrics
from edge.spool.record import Record
from schemas.cloudevents import event_headers
from schemas.codec import quarantined_callback_codec, task_event_codec
from schemas.errors import ConfigurationError, TaskbridgeError
from schemas.registry import Registry
from schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS
from service.kafka import AsyncProducer, admin_client, producer_config, read_kafka_config
from service.topic_admin import apply_topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prometheus_client import CollectorRegistry

    from edge.settings import EdgeSettings
    from schemas.events import QuarantinedCallback, TaskEvent

_OWN_TOPICS = (TASK_EVENTS, CALLBACKS_QUARANTINE)

_FIRST_RETRY_S = 0.25
_LAST_RETRY_S = 5.0

_QUARANTINE_SHARE = 0.5
"""Of the spool's bound: rejected callbacks, which anybody can send, leave the other half to those that are proven."""

SPOOL_FOLDER = "spool"

SPOOL_IS_BROKEN = "broken, restart the edge"
"""How the spool's part of the health begins when only a restart mends it."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_log = structlog.stdlib.get_logger(__name__)


class Publisher(Protocol):
    """What the path of a callback needs of whatever keeps events."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def health(self) -> dict[str, str]:
        """Each part that is needed to keep an event, and ``ok`` or what is the matter with it."""
        ...

    def can_keep(self) -> bool:
        """Whether a callback could be kept now, wherever."""
        ...

    async def publish(self, event: TaskEvent, *, traceparent: str | None) -> Durability:
        """Return once the event is durable.

        Raises:
            NotDurable: it is not, or that is not known.
            TooLarge: it never can be.
        """
        ...

    async def quarantine(self, callback: QuarantinedCallback) -> Durability:
        """Return once the rejected callback is durable.

        Raises:
            NotDurable: it is not, or that is not known.
            TooLarge: it never can be.
        """
        ...


def valid_traceparent(header: str | None) -> str | None:
    """A W3C trace context that can be handed on, or None."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


class KafkaPublisher:
    """Publishes to Kafka, else to the spool. Starts without Kafka and registry, and becomes able by itself."""

    def __init__(self, settings: EdgeSettings, *, partitions: int, metrics: CollectorRegistry | None = None) -> None:
        """Check the configuration, without connecting to anything.

        Raises:
            ConfigurationError: the Kafka config file cannot be read, or librdkafka refuses a property.
        """
        self._settings = settings
        self._partitions = partitions
        self._extra = read_kafka_config(settings.kafka_config_file)
        self._config = producer_config(settings.kafka_bootstrap_servers, self._extra)
        self._max_record_bytes = int(str(self._config["message.max.bytes"]))
        try:
            Producer(dict(self._config), logger=logging.getLogger("librdkafka"))
        except KafkaException as error:
            raise ConfigurationError(f"Kafka's configuration: {error.args[0].str()}") from error
        self._registry = Registry(settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json")
        self._events = task_event_codec(self._registry)
        self._quarantined = quarantined_callback_codec(self._registry)
        self._schemas = (self._events.schema, self._quarantined.schema)
        self._kafka = KafkaPath(lambda: AsyncProducer(self._config), self._registry)
        self._kafka.know(*self._schemas)
        spool_metrics = SpoolMetrics(metrics)
        self._spools = SpoolKeeper(
            settings.data_dir / SPOOL_FOLDER,
            self._schemas,
            self._kafka,
            max_bytes=settings.spool_max_bytes,
            metrics=spool_metrics,
        )
        spool_metrics.watch(self._spools, self._kafka)
        self._outbox = Outbox(self._kafka, self._spools, timeout_s=settings.kafka_timeout_ms / 1000)
        self._upkeep: list[asyncio.Task[None]] = []
        self._registry_problem: str | None = None
        self._ids_unsaved: str | None = None

    async def start(self) -> None:
        """Open the spool, with what it holds from before, and begin to look after Kafka and the registry."""
        self._kafka.start()
        await self._spools.start()
        self._upkeep = [
            asyncio.create_task(self._keep_kafka()),
            asyncio.create_task(self._keep_schemas()),
            asyncio.create_task(self._spools.tend()),
        ]

    async def close(self) -> None:
        """Wait, within bounds, for what was handed to Kafka; what it does not take stays in the spool."""
        for task in self._upkeep:
            task.cancel()
        for task in self._upkeep:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._spools.close()
        left = await self._kafka.close()
        self._registry.close()
        if left:
            _log.warning("deliveries_unknown", records=left)

    def health(self) -> dict[str, str]:
        return {"kafka": self._kafka_health(), "spool": self._spool_health(), "registry": self._registry_health()}

    def can_keep(self) -> bool:
        return self._outbox.can_keep

    async def publish(self, event: TaskEvent, *, traceparent: str | None) -> Durability:
        return await self._keep(
            Record(
                topic=TASK_EVENTS.name,
                key=event.instance_id.encode(),
                headers=event_headers(event, traceparent=traceparent),
                schema=self._events.schema_key,
                body=self._events.encode_body(event),
            )
        )

    async def quarantine(self, callback: QuarantinedCallback) -> Durability:
        if self._spools.size > self._settings.spool_max_bytes * _QUARANTINE_SHARE:
            raise NotDurable("the spool has room only for callbacks that are proven")
        return await self._keep(
            Record(
                topic=CALLBACKS_QUARANTINE.name,
                key=(callback.app_type or "").encode(),
                headers=(),
                schema=self._quarantined.schema_key,
                body=self._quarantined.encode_body(callback),
            )
        )

    async def _keep(self, record: Record) -> Durability:
        if record.size > self._max_record_bytes:
            # Before anything is promised: the producer would refuse it for ever.
            raise TooLarge("record-size", "The event is larger than a record may be.")
        return await self._outbox.keep(record)

    def _kafka_health(self) -> str:
        if not self._kafka.answers:
            return "does not answer"
        if not self._kafka.topics_exist:
            return "its topics are not made sure of yet"
        return "does not acknowledge records" if self._kafka.is_failing else "ok"

    def _spool_health(self) -> str:
        if self._spools.broken is not None:
            return f"{SPOOL_IS_BROKEN}: {self._spools.broken}"
        if self._spools.full:
            return f"full: {self._spools.problem or 'no room'}"
        return "ok"

    def _registry_health(self) -> str:
        if not all(self._kafka.can_frame(schema.key) for schema in self._schemas):
            return f"has not given the schemas' ids yet: {self._registry_problem or 'not asked yet'}"
        if self._ids_unsaved is not None:
            return f"its ids are not on the disk, for a start without it: {self._ids_unsaved}"
        return "ok"

    async def _keep_kafka(self) -> None:
        while True:
            await _survive(self._check_kafka)
            await asyncio.sleep(self._kafka.next_check_s)

    async def _keep_schemas(self) -> None:
        for step in (self._register, self._save_ids):
            retry_s = _FIRST_RETRY_S
            while not await _survive(step):
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _register(self) -> None:
        self._registry_problem = None
        refused: TaskbridgeError | None = None
        for topic in _OWN_TOPICS:
            # One by one: what the registry has against one of them must not hold up the other.
            try:
                await asyncio.to_thread(self._registry.register, [topic])
            except TaskbridgeError as error:
                refused, self._registry_problem = error, str(error)
            self._kafka.know(*self._schemas)
        if refused is not None:
            raise refused
        _log.info("schemas_registered")

    async def _save_ids(self) -> None:
        self._ids_unsaved = await asyncio.to_thread(self._registry.save)
        if self._ids_unsaved is not None:
            raise NotDurable(f"the schemas' ids could not be written: {self._ids_unsaved}")

    async def _check_kafka(self) -> None:
        # Only now, because the admin client would wait a quarter of a minute for a broker that is away.
        if await self._kafka.check() and not self._kafka.topics_exist:
            await asyncio.to_thread(self._apply_topics)
            self._kafka.topics_exist = True
            self._kafka.update()

    def _apply_topics(self) -> None:
        admin = admin_client(self._settings.kafka_bootstrap_servers, self._extra)
        for report in apply_topics(admin, _OWN_TOPICS, partitions=self._partitions):
            _log.info("topic_applied", topic=report.name, created=report.created, partitions=report.partitions)
            for line in report.drift:
                _log.warning("topic_differs", topic=report.name, difference=line)
            if report.unchecked is not None:
                _log.warning("topic_not_checked", topic=report.name, problem=report.unchecked)


async def _survive(call: Callable[[], Awaitable[None]]) -> bool:
    """Whether it went well: upkeep must outlive whatever the surroundings do."""
    try:
        await call()
    except Exception as error:  # noqa: BLE001 - see above
        _log.warning("not_prepared", problem=str(error), foreseen=isinstance(error, TaskbridgeError))
        return False
    return True
