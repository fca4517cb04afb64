"""The edge's Kafka client: sends records, and knows which partitions accept them.

It alone knows what "away" means. Kafka is away while no broker answers. A topic is, until it is known to exist. A
partition is after a failed delivery, until one succeeds: brokers may answer requests long before they accept records
again, and may accept those of one partition and not of another.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import murmur2
from msgspec import Struct

from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.schemas.codec import framed
from taskbridge.schemas.registry import SchemaRef

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from taskbridge.edge.kafka.record import Record
    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.registry import Registry

_log = structlog.stdlib.get_logger(__name__)


_CHECK_S = 2.0
_AWAY_CHECK_S = 0.25
_FORGIVE_S = 2.0
_HOPELESS_FLUSH_S = 1.0
_SILENT_S = 15.0
"""After that much silence a new producer is made. librdkafka forgets each broker that an answer does not name.
If it names none, because all are fenced for a moment, librdkafka may know no broker any more (its issue 5301)."""
_LOG_AGAIN_S = 60.0
_LAST_REPORT_S = 35.0
"""By then librdkafka has reported on every record: message.timeout.ms, and some."""
Partition = tuple[str, int]
"""A topic and the number of a partition; -1 where it is not known how many there are."""


class Sendings(dict["Sending", "Record"]):
    """Those under way, the oldest first. All have the same time, so one timer is enough: for the oldest."""

    def __init__(self, failed: Callable[[Record, Exception], None]) -> None:
        """``failed`` is called for each before its own ``then``."""
        super().__init__()
        self.failed = failed
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: Record, then: Callable[[Exception | None], None], timeout_s: float) -> Sending:
        """Add one; ``then`` is called with its outcome."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        sending = Sending(self, record, then, self.loop.time() + timeout_s)
        self[sending] = record
        if self._timer is None:
            self._timer = self.loop.call_later(timeout_s, self._look)
        return sending

    def _look(self) -> None:
        assert self.loop is not None, "one was added"
        now = self.loop.time()
        self._timer = None
        for each in list(self):
            if each.late_at > now:
                self._timer = self.loop.call_at(each.late_at, self._look)
                break
            if not each.done():
                each.set_exception(DeliveryFailed("no acknowledgement in time"))


class Sending(Struct, eq=False):
    """One record: for the producer a future, whose callback runs at once and not in the loop's next turn."""

    _all: Sendings
    _record: Record
    _then: Callable[[Exception | None], None]
    late_at: float
    _is_done: bool = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, _result: None) -> None:
        self._is_done = True
        del self._all[self]
        self._then(None)

    def set_exception(self, error: Exception) -> None:
        """The callback runs in the next turn, because one failure causes others."""
        self._is_done = True
        del self._all[self]
        assert self._all.loop is not None, "it was added"
        self._all.loop.call_soon(self._fail, error)

    def _fail(self, error: Exception) -> None:
        try:
            self._all.failed(self._record, error)
        finally:
            self._then(error)


class SchemaIdUnknown(DeliveryFailed):
    """The id of the record's schema is not known yet."""


class KafkaClient:
    """Sends records from one event loop."""

    def __init__(self, make_producer: Callable[[], AsyncProducer], registry: Registry) -> None:
        self._make_producer = make_producer
        self._registry = registry
        self._frames: dict[str, bytes] = {}
        """The frame before each body, by its schema."""
        self._sendings = Sendings(self._not_sent)
        self._closing: set[asyncio.Task[int]] = set()
        self._open = asyncio.Event()
        self._topics: dict[str, int] = {}
        self._failed: dict[Partition, tuple[float, str]] = {}
        """Of each, when its last failure was, and what that said."""
        self._not_replaced: tuple[str, float] | None = None
        """The last logged error of a new producer, and when to log it again."""
        self.answers = False

    def start(self) -> None:
        self._producer = self._make_producer()
        self._heard_at = time.monotonic()

    async def close(self) -> int:
        """Wait, within bounds, for what was handed over; returns how many records are left without an answer."""
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=_HOPELESS_FLUSH_S)
            for task in late:
                task.cancel()
        return await (self._producer.close() if self.usable else self._producer.close(timeout_s=_HOPELESS_FLUSH_S))

    @property
    def usable(self) -> bool:
        """Any record that is sent now will probably be acknowledged soon."""
        return self.answers and bool(self._topics) and not self._failed

    def has(self, topic: str) -> bool:
        """The topic is made sure of."""
        return topic in self._topics

    def accepts(self, record: Record) -> bool:
        """The record, sent now, will probably be acknowledged soon."""
        return (
            self.answers
            and record.topic in self._topics
            and record.schema in self._frames
            and (not self._failed or self.partition_of(record) not in self._failed)
        )

    def accepts_all_of(self, topic: str, schema: str) -> bool:
        """Each record of the topic, sent now, will probably be acknowledged soon."""
        return self.answers and topic in self._topics and schema in self._frames and not self._failed

    def accepts_any_of(self, topic: str) -> bool:
        """Some records of the topic will probably be acknowledged soon."""
        return self.answers and topic in self._topics and self.failing(topic) < max(1, self._topics[topic])

    def is_failing(self, place: Partition) -> bool:
        """The last delivery to it failed; only a single record may be tried until one succeeds."""
        return place in self._failed

    def failing(self, topic: str) -> int:
        """So many partitions of it have failed, and not succeeded since."""
        return sum(failed == topic for failed, _ in self._failed)

    def problem_of(self, topic: str) -> str | None:
        """What the topic's last failure said; None while there is none."""
        found = [failure for (failed, _), failure in self._failed.items() if failed == topic]
        return max(found)[1] if found else None

    def partition_of(self, record: Record) -> Partition:
        """Where every producer of ours puts the record."""
        partitions = self._topics.get(record.topic, 0)
        return record.topic, murmur2(record.key, partitions) if partitions else -1

    def open(self, topic: str, *, partitions: int) -> None:
        """The topic is made sure of."""
        self._topics[topic] = partitions
        self._update()

    async def until_answers(self) -> None:
        await self._open.wait()

    async def check(self) -> bool:
        """Request metadata from a broker, and remember whether it answered."""
        self.replace_if_dead()
        answers = not self._producer.is_dead and await self._producer.answers()
        now = time.monotonic()
        if answers:
            self._heard_at = now
        elif now - self._heard_at >= _SILENT_S:
            self._heard_at = now
            self._replace_producer(problem="no answer")
        if answers != self.answers:
            _log.info("kafka_reachable" if answers else "kafka_unreachable")
        self.answers = answers
        self._update()
        return answers

    @property
    def next_check_s(self) -> float:
        return _CHECK_S if self.usable else _AWAY_CHECK_S

    def fail(self, record: Record, error: DeliveryFailed) -> None:
        """A delivery failed: no other record of its partition waits for the whole time limit."""
        place, problem = self.partition_of(record), str(error)
        if place not in self._failed:
            _log.warning("kafka_delivery_failed", topic=place[0], partition=place[1], problem=problem)
        self._failed[place] = (time.monotonic(), problem)
        for delivery, other in tuple(self._sendings.items()):
            if not delivery.done() and self.partition_of(other) == place:
                delivery.set_exception(DeliveryFailed(f"another delivery failed: {problem}"))
        if error.topic_is_gone and self._topics.pop(record.topic, None) is not None:
            _log.error("kafka_topic_missing", topic=record.topic)

    def succeed(self, record: Record) -> None:
        if not self._failed:
            return
        place = self.partition_of(record)
        if self._failed.pop(place, None) is not None:
            _log.info("partition_recovered", topic=place[0], partition=place[1])

    def forgive(self, *, but: Container[Partition] = ()) -> None:
        """Let a callback try a partition again, where no spooled record is there to be tried."""
        until = time.monotonic() - _FORGIVE_S
        for place in [each for each, (at, _) in self._failed.items() if at < until and each not in but]:
            del self._failed[place]

    def can_frame(self, schema: str) -> bool:
        return schema in self._frames

    def load_ids(self, *schemas: SchemaRef) -> None:
        """Take the schemas' ids over from the registry's memory, as far as it has them."""
        for schema in schemas:
            known = self._registry.known_id(schema)
            if known is not None:
                self._frames[schema.key] = framed(known, b"")

    async def fetch_id(self, key: str, texts: Mapping[str, tuple[str, str]]) -> bool:
        """Find the id of a schema, by the registry where it must be; False if the schema itself is not known.

        Raises RegistryUnavailable or SchemaRefused.
        """
        if key in texts and key not in self._frames:
            found = await asyncio.to_thread(self._registry.learn_id, SchemaRef(*texts[key]))
            self._frames[key] = framed(found, b"")
        return key in self._frames

    def send(self, record: Record) -> asyncio.Future[None]:
        """Hand over one record; the future raises DeliveryFailed when it is not known to have arrived.

        It raises QueueFull when it was not handed over.

        Raises SchemaIdUnknown.
        """
        frame = self._frames.get(record.schema)
        if frame is None:
            raise SchemaIdUnknown(f"{record.topic}: the schema id is not known yet")
        return self._producer.produce(record.topic, key=record.key, value=frame + record.body, headers=record.headers)

    async def send_within(self, record: Record, *, timeout_s: float) -> None:
        """Return once Kafka has acknowledged the record.

        Raises DeliveryFailed or QueueFull if it has not, or that is not known; how Kafka is doing is remembered.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(error: Exception | None) -> None:
            if done.done():
                return  # nobody waits any more
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self.send_then(record, then, timeout_s=timeout_s)
        await done

    def send_then(self, record: Record, then: Callable[[Exception | None], None], *, timeout_s: float) -> None:
        """As ``send_within`` without a future: ``then`` is called with None, or with the error."""
        value = self._frames[record.schema] + record.body
        sending = self._sendings.add(record, then, timeout_s)
        self._producer.send(sending, record.topic, key=record.key, value=value, headers=record.headers)

    def _not_sent(self, record: Record, error: Exception) -> None:
        self.replace_if_dead()
        if isinstance(error, DeliveryFailed) and not error.is_final:
            self.fail(record, error)

    def replace_if_dead(self) -> None:
        """A producer that met a fatal error (an idempotent one whose broker lost records) never works again."""
        if self._producer.is_dead:
            self._replace_producer(problem="a fatal error")

    def _replace_producer(self, *, problem: str) -> None:
        """Make another producer; where none can be made, Kafka is away, and the next check tries again."""
        former = self._producer
        try:
            self._producer = self._make_producer()
        except Exception as error:  # noqa: BLE001 - callbacks go to the spool
            self._log_not_replaced(problem, str(error))
            self.answers = False
            self._update()
            return
        self._not_replaced = None
        _log.warning("kafka_producer_replaced", problem=problem)
        # Somebody may wait for a record of its without a limit in time, so each gets its report.
        task = asyncio.create_task(former.close(timeout_s=_LAST_REPORT_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _log_not_replaced(self, problem: str, because: str) -> None:
        """Log a new error at once, and a repeated one once a minute: each check of Kafka tries again."""
        now = time.monotonic()
        if self._not_replaced is None or self._not_replaced[0] != because or now >= self._not_replaced[1]:
            self._not_replaced = (because, now + _LOG_AGAIN_S)
            _log.error("kafka_producer_not_replaced", problem=problem, because=because)

    def _update(self) -> None:
        (self._open.set if self.answers and self._topics else self._open.clear)()
