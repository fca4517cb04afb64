"""Makes events durable: in Kafka, or in the spool while Kafka does not acknowledge.

No callback is answered before all in-sync replicas have the event, or the disk has it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Gauge

from taskbridge.edge.errors import NotDurable, TooLarge
from taskbridge.edge.events import Durability
from taskbridge.edge.kafka.client import KafkaClient
from taskbridge.edge.kafka.prerequisites import Prerequisites
from taskbridge.edge.kafka.record import Record
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.spools import Spools
from taskbridge.edge.spool.store import SpoolFull
from taskbridge.runtime.kafka import producer_config, read_kafka_config
from taskbridge.runtime.producer import AsyncProducer, DeliveryFailed, QueueFull, make_producer
from taskbridge.schemas.cloudevents import quarantined_headers, with_trace
from taskbridge.schemas.codec import quarantined_callback_codec, task_event_codec
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from taskbridge.edge.events import Decided
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.settings import EdgeSettings
    from taskbridge.schemas.events import QuarantinedCallback

_log = structlog.stdlib.get_logger(__name__)


_LAST_FEW = 250
_HOLD_S = 0.25
_LOOK_S = 0.002


_QUARANTINE_SHARE = 0.5
"""Of the spool's limit: rejected callbacks, which anybody can send, leave the other half to verified ones."""
_HEADERS_BYTES = 16 << 10
"""Key and headers of an event are smaller: each of its ids has at most 128 characters."""
SPOOL_FOLDER = "spool"
SPOOL_IS_BROKEN = "broken, and no new file can be created"
"""Start of the spool's health text. It is normal for a second; if it lasts, a restart may help."""


_KAFKA, _SPOOL = Durability.KAFKA, Durability.SPOOL  # an enumeration's lookup calls Python


class Router:
    """Stores a record in Kafka, else in the spool; if that has no room, in Kafka nevertheless.

    This one place decides, on the event loop, so that order holds. A record goes directly to Kafka only while no file
    of this edge has records that can be delivered: it should not overtake those that were answered before it. The
    outcome of events does not depend on their order, so order is no reason to refuse one.
    """

    def __init__(self, kafka: KafkaClient, spools: Spools, *, timeout_s: float) -> None:
        self._kafka = kafka
        self._spools = spools
        self._timeout_s = timeout_s
        self._almost_empty: asyncio.Task[None] | None = None

    async def store(self, record: Record, *, may_spool: bool = True) -> Durability:
        """Return once the record is durable. Raises NotDurable as ``KafkaPublisher.publish`` does."""
        tried = False
        if self._kafka.accepts(record) and (not self._spools.moving or await self._are_last_few_through(record)):
            if await self._sent(record):
                return Durability.KAFKA
            tried = True
        try:
            if not may_spool:
                raise SpoolFull("the spool has room only for verified callbacks")
            return await self.spool(record)
        except NotDurable:
            if not tried and self._kafka.accepts(record) and await self._sent(record):
                return Durability.KAFKA
            raise

    async def spool(self, record: Record) -> Durability:
        """Return once the record is durable that Kafka did not acknowledge. Raises NotDurable as ``publish`` does."""
        await self._spools.own.put(record)
        return Durability.SPOOL

    def is_direct_for(self, topic: str, schema: str) -> bool:
        return self._kafka.accepts_all_of(topic, schema) and not self._spools.moving

    def can_store(self) -> bool:
        """Whether an event could be stored now, in Kafka or in the spool."""
        return (self._spools.broken is None and not self._spools.full) or self._kafka.accepts_any_of(TASK_EVENTS.name)

    async def _sent(self, record: Record) -> bool:
        try:
            await self._kafka.send_within(record, timeout_s=self._timeout_s)
        except (DeliveryFailed, QueueFull):
            # Kafka may have it nevertheless. A duplicate is allowed, a loss is not.
            return False
        return True

    async def _are_last_few_through(self, record: Record) -> bool:
        """Whether the spools hold so few records that they are delivered shortly."""
        if self._spools.moving > _LAST_FEW:
            return False
        # If callbacks were spooled while the last few leave, the spool would never be empty.
        if self._almost_empty is None or self._almost_empty.done():
            self._almost_empty = asyncio.create_task(self._until_empty())
        await asyncio.shield(self._almost_empty)
        return self._kafka.accepts(record) and not self._spools.moving

    async def _until_empty(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HOLD_S
        while self._kafka.answers and self._spools.moving and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)


class KafkaPublisher(Router):
    """Builds the parts that make events durable. It starts without Kafka and registry, and connects when it can."""

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        partitions: int,
        metrics: CollectorRegistry | None = None,
        on_drained: Callable[[Sequence[SpooledRecord]], None] | None = None,
    ) -> None:
        """Check the configuration, without any connection. ``on_drained``: see ``SpoolMetrics``.

        Raises ConfigurationError if the Kafka config file cannot be read, or librdkafka refuses a property.
        """
        self._settings = settings
        self._extra = read_kafka_config(settings.kafka_config_file)
        # Records of one turn of the loop are sent together anyway, and under load those that wait for a free request.
        self._config = producer_config(settings.kafka_bootstrap_servers, {"linger.ms": "0", **self._extra})
        self._max_record_bytes = int(str(self._config["message.max.bytes"]))
        make_producer(self._config)
        self._registry = Registry(
            settings.schema_registry_url, ids_path=settings.data_dir / "schema-ids.json", properties=self._extra
        )
        self._events = task_event_codec(self._registry)
        self._quarantined = quarantined_callback_codec(self._registry)
        self._schemas = (self._events.schema, self._quarantined.schema)
        kafka = KafkaClient(lambda: AsyncProducer(self._config), self._registry)
        kafka.load_ids(*self._schemas)
        registry = metrics or CollectorRegistry()
        spools = Spools(
            settings.data_dir / SPOOL_FOLDER,
            self._schemas,
            kafka,
            max_bytes=settings.spool_max_bytes,
            metrics=SpoolMetrics(registry, on_drained=on_drained),
        )
        _watch(kafka, registry)
        super().__init__(kafka, spools, timeout_s=settings.kafka_timeout_ms / 1000)
        self._prerequisites = Prerequisites(
            settings, self._extra, kafka, self._registry, schemas=self._schemas, partitions=partitions
        )
        self._maintenance: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the spool, with the records from before, and connect to Kafka and the registry in the background."""
        self._kafka.start()
        await self._spools.start()
        self._prerequisites.start()
        self._maintenance = asyncio.create_task(self._spools.maintain())

    async def close(self) -> None:
        """Wait, in bounded time, for records that were sent; those in the spool stay there."""
        await self._prerequisites.close()
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.gather(self._maintenance, return_exceptions=True)
        await self._spools.close()
        left = await self._kafka.close()
        self._registry.close()
        if left:
            _log.warning("deliveries_unknown", records=left)

    def health(self) -> dict[str, str]:
        """Each part that is needed to store an event, and ``ok`` or its problem."""
        return {**self._prerequisites.health(), "spool": self._spool_health()}

    async def publish(self, decided: Decided, *, traceparent: str | None) -> Durability:
        """Return once the event is durable.

        Raises NotDurable if it is not, or that is not known; TooLarge if it never can be.
        """
        return await self._store_checked(self._record_of(decided, traceparent))

    def way(self) -> Durability | None:
        """Where an event is stored that is sent now; None if there may be something to wait for first."""
        if self.is_direct_for(TASK_EVENTS.name, self._events.schema_key):
            return _KAFKA
        return None if self._kafka.accepts_any_of(TASK_EVENTS.name) else _SPOOL

    def publish_then(
        self, decided: Decided, *, traceparent: str | None, then: Callable[[Durability | Exception], None]
    ) -> None:
        """As ``publish``, which is a task only where it has to be.

        ``then`` is called once with the durability or the error, never before this returns, unless this raises.
        """
        way = self.way()
        if way is None:
            _start(self.publish(decided, traceparent=traceparent), then)
            return
        record = self._record_of(decided, traceparent)
        self._check_size(record)
        if way is _KAFKA:
            self._kafka.send_then(record, partial(self._delivered, record, then), timeout_s=self._timeout_s)
            return
        try:
            self._spools.own.put(record).add_done_callback(partial(self._spooled, record, then))
        except NotDurable:
            _start(self.store(record), then)

    def _delivered(
        self, record: Record, then: Callable[[Durability | Exception], None], error: Exception | None
    ) -> None:
        if error is None:
            then(_KAFKA)
        else:
            # Kafka may have it nevertheless. A duplicate is allowed, a loss is not.
            _start(self.spool(record), then)

    def _spooled(
        self, record: Record, then: Callable[[Durability | Exception], None], done: asyncio.Future[None]
    ) -> None:
        if done.exception() is None:
            then(_SPOOL)
        else:  # Kafka may be back
            _start(self.store(record), then)

    async def quarantine(self, callback: QuarantinedCallback) -> Durability:
        """Return once the rejected callback is durable. Raises as ``publish``."""
        return await self._store_checked(
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

    async def _store_checked(self, record: Record, *, may_spool: bool = True) -> Durability:
        self._check_size(record)
        return await self.store(record, may_spool=may_spool)

    def _check_size(self, record: Record) -> None:
        if len(record.body) + _HEADERS_BYTES > self._max_record_bytes < record.size:
            # The spool would accept it, and the producer would refuse it for ever.
            raise TooLarge("record-size", "The event is larger than a Kafka record may be.")

    def _spool_health(self) -> str:
        if self._spools.broken is not None:
            return f"{SPOOL_IS_BROKEN}: {self._spools.broken}"
        if self._spools.full:
            return f"full: {self._spools.problem or 'no room'}"
        if unopened := self._spools.unopened:
            return "; ".join(f"{number}.db cannot be opened: {problem}" for number, problem in unopened.items())
        if self._spools.set_aside:
            return f"{self._spools.set_aside} records set aside, Kafka rejects them: 'taskbridge set-aside list spool'"
        return "ok"


_tasks: set[asyncio.Task[None]] = set()
"""A loop has only weak references to its tasks."""


def _start(storing: Coroutine[None, None, Durability], then: Callable[[Durability | Exception], None]) -> None:
    async def store() -> None:
        try:
            outcome = await storing
        except Exception as error:  # noqa: BLE001 - it is the outcome
            then(error)
        else:
            then(outcome)

    task = asyncio.get_running_loop().create_task(store())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _watch(kafka: KafkaClient, registry: CollectorRegistry) -> None:
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
