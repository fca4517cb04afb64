"""The way to Kafka: whether it is open, and records sent along it. The one place that knows what "away" means.

Away means: no broker answers, the topics are not made sure of, or the last delivery failed. A failed delivery is only
made good by one that succeeds: brokers may answer questions for long before they take records again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from schemas.codec import framed
from schemas.registry import SchemaRef
from service.kafka import DeliveryFailed, within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge.spool.record import Record
    from schemas.registry import Registry
    from service.kafka import AsyncProducer

_CHECK_S = 2.0
_AWAY_CHECK_S = 0.25
_FORGIVE_S = 2.0
_HOPELESS_FLUSH_S = 1.0
_LAST_REPORT_S = 35.0
"""By then librdkafka has reported on every record: message.timeout.ms, and some."""

_log = structlog.stdlib.get_logger(__name__)


class SchemaIdUnknown(DeliveryFailed):
    """The registry has never told the id of the schema that the record was written by."""


class KafkaPath:
    """Sends records from one event loop."""

    def __init__(self, make_producer: Callable[[], AsyncProducer], registry: Registry) -> None:
        self._make_producer = make_producer
        self._registry = registry
        self._ids: dict[str, int] = {}
        self._hurried: set[asyncio.Future[None]] = set()
        self._closing: set[asyncio.Task[int]] = set()
        self._open = asyncio.Event()
        self._failed_at: float | None = None
        self._answers = False
        self.topics_exist = False

    def start(self) -> None:
        self._producer = self._make_producer()

    async def close(self) -> int:
        """Wait, within bounds, for what was handed over; returns how many records are left without an answer."""
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=_HOPELESS_FLUSH_S)
            for task in late:
                task.cancel()
        return await (self._producer.close() if self.usable else self._producer.close(timeout_s=_HOPELESS_FLUSH_S))

    @property
    def answers(self) -> bool:
        return self._answers

    @property
    def is_failing(self) -> bool:
        """The last delivery failed; only a single record may be tried until one succeeds."""
        return self._failed_at is not None

    @property
    def is_open(self) -> bool:
        """A record may be tried."""
        return self._answers and self.topics_exist

    @property
    def usable(self) -> bool:
        """A record that is sent now will probably be acknowledged soon."""
        return self._answers and self.topics_exist and self._failed_at is None

    async def until_open(self) -> None:
        await self._open.wait()

    async def check(self) -> bool:
        """Ask a broker, and remember whether it answered."""
        self.replace_if_dead()
        answers = await self._producer.answers()
        if answers != self._answers:
            _log.info("kafka_answers" if answers else "kafka_does_not_answer")
        self._answers = answers
        self.update()
        return answers

    def update(self) -> None:
        (self._open.set if self.is_open else self._open.clear)()

    @property
    def next_check_s(self) -> float:
        return _CHECK_S if self.usable else _AWAY_CHECK_S

    def fail(self, problem: str) -> None:
        """A delivery failed: nobody else shall wait for the whole time limit to learn the same."""
        if not self.is_failing:
            _log.warning("kafka_delivery_failed", problem=problem)
        self._failed_at = time.monotonic()
        hurried, self._hurried = self._hurried, set()
        for future in hurried:
            if not future.done():
                future.set_exception(DeliveryFailed(f"another delivery failed: {problem}"))

    def succeed(self) -> None:
        if self.is_failing:
            _log.info("kafka_delivers")
        self._failed_at = None

    def forgive(self) -> None:
        """Let a callback try again, where no spooled record is there to be tried."""
        if self._failed_at is not None and time.monotonic() - self._failed_at > _FORGIVE_S:
            self._failed_at = None

    def can_frame(self, schema: str) -> bool:
        return schema in self._ids

    def know(self, *schemas: SchemaRef) -> None:
        """Take the schemas' ids over from the registry's memory, as far as it has them."""
        for schema in schemas:
            known = self._registry.known_id(schema)
            if known is not None:
                self._ids[schema.key] = known

    async def learn(self, key: str, texts: Mapping[str, tuple[str, str]]) -> bool:
        """Find the id of a schema, by the registry where it must be; False when nobody knows the schema itself.

        Raises:
            RegistryUnavailable, SchemaRefused
        """
        if key in texts and key not in self._ids:
            self._ids[key] = await asyncio.to_thread(self._registry.learn_id, SchemaRef(*texts[key]))
        return key in self._ids

    def send(self, record: Record) -> asyncio.Future[None]:
        """Hand over one record; the future raises DeliveryFailed when it is not known to have arrived.

        It raises QueueFull when it was not handed over.

        Raises:
            SchemaIdUnknown
        """
        schema_id = self._ids.get(record.schema)
        if schema_id is None:
            raise SchemaIdUnknown(f"{record.topic}: the id of its schema is not known yet")
        return self._producer.produce(
            record.topic, key=record.key, value=framed(schema_id, record.body), headers=record.headers
        )

    async def send_within(self, record: Record, *, timeout_s: float) -> None:
        """Return once Kafka has acknowledged the record.

        Raises:
            DeliveryFailed, QueueFull: it has not, or that is not known; how Kafka is doing is remembered.
        """
        future = self.send(record)
        self._hurried.add(future)
        try:
            await within(timeout_s, future)
        except TimeoutError as error:
            self.fail("no acknowledgement in time")
            raise DeliveryFailed("Kafka did not acknowledge the event in time") from error
        except DeliveryFailed as error:
            self.replace_if_dead()
            if not error.too_large:
                self.fail(str(error))
            raise
        finally:
            self._hurried.discard(future)

    def replace_if_dead(self) -> None:
        """A producer that met a fatal error (an idempotent one whose broker lost records) never works again."""
        if self._producer.is_dead:
            _log.error("kafka_producer_replaced")
            # Somebody may wait for a record of its without a limit in time, so each gets its report.
            task = asyncio.create_task(self._producer.close(timeout_s=_LAST_REPORT_S))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._producer = self._make_producer()
