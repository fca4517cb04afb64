"""Makes events durable: Avro onto ``taskbridge.task-events.v1``, or into the spool while Kafka does not acknowledge.

Nothing is answered before all in-sync replicas have the event, or the disk has it. Here the parts are put together.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
from prometheus_client import CollectorRegistry, Gauge

from taskbridge.edge.delivery.router import Router
from taskbridge.edge.errors import TooLarge
from taskbridge.edge.kafka.path import KafkaPath
from taskbridge.edge.kafka.record import Record
from taskbridge.edge.kafka.surroundings import Surroundings
from taskbridge.edge.spool.keeper import SpoolKeeper
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.runtime.kafka import producer_config, read_kafka_config
from taskbridge.runtime.producer import AsyncProducer, make_producer
from taskbridge.schemas.cloudevents import quarantined_headers, with_trace
from taskbridge.schemas.codec import quarantined_callback_codec, task_event_codec
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.edge.delivery.router import Durability
    from taskbridge.edge.events import Decided
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.schemas.events import QuarantinedCallback

_QUARANTINE_SHARE = 0.5
"""Of the spool's bound: rejected callbacks, which anybody can send, leave the other half to those that are proven."""

_HEADERS_BYTES = 16 << 10
"""Key and headers of an event are smaller: each of its ids has at most 128 characters."""

SPOOL_FOLDER = "spool"

SPOOL_IS_BROKEN = "broken, and no new file can be created"
"""How the spool's part of the health begins. For a second that is nothing; if it lasts, a restart may mend it."""

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

    async def publish(self, decided: Decided, *, traceparent: str | None) -> Durability:
        """Return once the event is durable.

        Raises:
            NotDurable: it is not, or that is not known.
            TooLarge: it never can be.
        """
        ...

    def is_direct(self) -> bool:
        """Whether an event may be sent without anybody who waits for it."""
        ...

    def send(self, decided: Decided, *, traceparent: str | None, then: Callable[[Exception | None], None]) -> Record:
        """Send an event where ``is_direct``; ``then`` is called, but not yet, with None once Kafka has it.

        Else with DeliveryFailed or QueueFull: the record is for ``spool``.

        Raises:
            TooLarge: it never can be durable; nothing was sent.
        """
        ...

    async def spool(self, record: Record) -> Durability:
        """Return once the record is durable that was sent in vain. Raises NotDurable as ``publish`` does."""
        ...

    async def quarantine(self, callback: QuarantinedCallback) -> Durability:
        """Return once the rejected callback is durable.

        Raises:
            NotDurable: it is not, or that is not known.
            TooLarge: it never can be.
        """
        ...


class KafkaPublisher:
    """Publishes to Kafka, else to the spool. Starts without Kafka and registry, and becomes able by itself."""

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        partitions: int,
        metrics: CollectorRegistry | None = None,
        on_drained: Callable[[Sequence[SpooledRecord]], None] | None = None,
    ) -> None:
        """Check the configuration, without connecting to anything. ``on_drained``: see ``SpoolMetrics``.

        Raises:
            ConfigurationError: the Kafka config file cannot be read, or librdkafka refuses a property.
        """
        self._settings = settings
        self._extra = read_kafka_config(settings.kafka_config_file)
        # One turn of the loop is sent together as it is, and under load what comes while five requests are out.
        self._config = producer_config(settings.kafka_bootstrap_servers, {"linger.ms": "0", **self._extra})
        self._max_record_bytes = int(str(self._config["message.max.bytes"]))
        make_producer(self._config)
        self._registry = Registry(
            settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json", properties=self._extra
        )
        self._events = task_event_codec(self._registry)
        self._quarantined = quarantined_callback_codec(self._registry)
        self._schemas = (self._events.schema, self._quarantined.schema)
        self._kafka = KafkaPath(lambda: AsyncProducer(self._config), self._registry)
        self._kafka.know(*self._schemas)
        registry = metrics or CollectorRegistry()
        self._spools = SpoolKeeper(
            settings.data_dir / SPOOL_FOLDER,
            self._schemas,
            self._kafka,
            max_bytes=settings.spool_max_bytes,
            metrics=SpoolMetrics(registry, on_drained=on_drained),
        )
        _watch(self._kafka, registry)
        self._router = Router(self._kafka, self._spools, timeout_s=settings.kafka_timeout_ms / 1000)
        self._around = Surroundings(
            settings, self._extra, self._kafka, self._registry, schemas=self._schemas, partitions=partitions
        )
        self._tending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the spool, with what it holds from before, and begin to look after Kafka and the registry."""
        self._kafka.start()
        await self._spools.start()
        self._around.start()
        self._tending = asyncio.create_task(self._spools.tend())

    async def close(self) -> None:
        """Wait, within bounds, for what was handed to Kafka; what it does not take stays in the spool."""
        await self._around.close()
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self._spools.close()
        left = await self._kafka.close()
        self._registry.close()
        if left:
            _log.warning("deliveries_unknown", records=left)

    def health(self) -> dict[str, str]:
        return {**self._around.health(), "spool": self._spool_health()}

    def can_keep(self) -> bool:
        return self._router.can_keep

    async def publish(self, decided: Decided, *, traceparent: str | None) -> Durability:
        return await self._keep(self._record_of(decided, traceparent))

    def is_direct(self) -> bool:
        return self._router.is_direct(TASK_EVENTS.name, self._events.schema_key)

    def send(self, decided: Decided, *, traceparent: str | None, then: Callable[[Exception | None], None]) -> Record:
        record = self._record_of(decided, traceparent)
        self._check_size(record)
        self._router.send(record, then)
        return record

    async def spool(self, record: Record) -> Durability:
        return await self._router.spool(record)

    async def quarantine(self, callback: QuarantinedCallback) -> Durability:
        return await self._keep(
            Record(
                topic=CALLBACKS_QUARANTINE.name,
                key=(callback.app_type or "").encode(),
                headers=quarantined_headers(callback),
                schema=self._quarantined.schema_key,
                body=self._quarantined.encode_body(callback),
            ),
            may_spool=self._spools.size <= self._settings.spool_max_bytes * _QUARANTINE_SHARE,
        )

    def _record_of(self, decided: Decided, traceparent: str | None) -> Record:
        return Record(
            topic=TASK_EVENTS.name,
            key=decided.key,
            headers=decided.headers if traceparent is None else with_trace([*decided.headers], traceparent),
            schema=self._events.schema_key,
            body=decided.body,
        )

    async def _keep(self, record: Record, *, may_spool: bool = True) -> Durability:
        self._check_size(record)
        return await self._router.keep(record, may_spool=may_spool)

    def _check_size(self, record: Record) -> None:
        if len(record.body) + _HEADERS_BYTES > self._max_record_bytes < record.size:
            # Before anything is promised: the producer would refuse it for ever.
            raise TooLarge("record-size", "The event is larger than a Kafka record may be.")

    def _spool_health(self) -> str:
        if self._spools.broken is not None:
            return f"{SPOOL_IS_BROKEN}: {self._spools.broken}"
        if self._spools.full:
            return f"full: {self._spools.problem or 'no room'}"
        if unopened := self._spools.unopened:
            return "; ".join(f"{number}.db cannot be opened: {problem}" for number, problem in unopened.items())
        if self._spools.set_aside:
            return f"{self._spools.set_aside} records set aside, Kafka rejects them: 'taskbridge spool set-aside'"
        return "ok"


def _watch(kafka: KafkaPath, registry: CollectorRegistry) -> None:
    """Read these gauges from the present state at every scrape."""
    usable = Gauge(
        "taskbridge_edge_kafka_usable", "1 while Kafka is expected to acknowledge records.", registry=registry
    )
    usable.set_function(lambda: kafka.usable)
    failing = Gauge(
        "taskbridge_edge_kafka_failing_partitions",
        "Partitions whose last record failed and that have acknowledged none since.",
        ["topic"],
        registry=registry,
    )
    for topic in (TASK_EVENTS, CALLBACKS_QUARANTINE):
        failing.labels(topic.name).set_function(partial(kafka.failing, topic.name))
